"""Rootstock's library: files in, run directory out, events on the way. It knows no HTTP, database or user.

Reading order (each module may import those before it, never those after)::

    errors, records, config            what can go wrong, what passes between stages, what a user may set
    tables -> duplicates -> data       files -> checked items -> leak-free splits
    sampling                           some items of many, every class among them
    intervals, metrics                 bootstrap, paired differences, McNemar; every reported value
    device, memory                     which precision this machine is fast at; peak memory
    base_models -> weights             names that an operator gives to backbones; a name -> verified files
    backbones                          files -> a classifier with its hidden layers found
    durable                            directories that are complete or absent
    trunk, lora                        freeze the lower layers; adapters above them
    unfreezing                         open those above the cut from the top down
    first_token                        the last layer for the one token that the head reads
    batches, lower_layers              token batches; the frozen layers run alone: content -> hidden states
    activation_store -> activations    hidden states on disk; of these items, computed once
    keep_or_recompute                  whether that is worth it here, measured
    encoded -> predict                 items as model inputs; logits in input order
    words -> attributions              which words moved a prediction
    occlusion                          a second opinion on them
    losses, lesson, parameter_groups   what a wrong answer costs, by label, by a teacher; who shares a learning rate
    checkpoint, dropout -> loop        resumable state; cheaper masks; one optimizer step at a time
    train                              the one training loop, which yields events
    baselines, deciding_features       majority and three logistic regressions; what decided these
    artifacts, saved_run               the run directory: complete or absent; read back
    provenance                         what a run comes from
    tune -> trial, score               one fine-tuning; one for a choice; one trained system on validation and test
    imbalance, distillation            what helps against uneven classes; a teacher for a student
    verdict                            was it worth it
    calibration, operating_points      temperature; thresholds for a wanted precision or recall
    bulk                               parts of classify: sources, chunks, engines, cascade, ledger, drift
    nearest                            the training items that a model sees an item most like
    slices, mistakes, curves, reading  where it fails, what to read, ROC, over- and underfitting
    evaluate, learning_curve           all of it on the test part, once; would more labels help
    ladder                             the rungs below the new model
    charts, highlights, card, report   SVG, shaded words, model card, one HTML file
    check                              what is wrong with labelled data, before anything is trained
    hidden_layers -> choices           what every layer knows; how many to freeze; what a run chooses itself
    run, compare, demo, probe, sweep   the things a user does, each on one page
    estimate                           what a run would take, from a small one that is really run
    explained_items -> explain         those with a finished run: why it said what it said
    classify, embed, export            many items; other runtimes

Letters in shapes: N items, B batch, T tokens, D hidden width, C classes, L hidden layers, F features, R resamples.
"""

import sys

# Code from a hub: bitsandbytes and transformers would fetch and run it where this package is installed.
sys.modules["kernels"] = None  # type: ignore[assignment]
