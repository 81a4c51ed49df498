"""Rootstock's library: files in, run directory out, events on the way. It knows no HTTP, database or user.

Reading order (each module may import those before it, never those after)::

    errors, records, config            what can go wrong, what passes between stages, what a user may set
    tables -> duplicates -> data       files -> checked items -> leak-free splits
    metrics, intervals                 every reported value; bootstrap and McNemar
    device                             which precision this machine is fast at
    weights -> backbones               a name -> verified files -> a classifier with its hidden layers found
    durable                            directories that are complete or absent
    trunk, lora                        freeze the lower layers; adapters above them
    batches -> predict                 token batches; logits in input order
    checkpoint -> train                resumable state on disk; the one training loop, which yields events
    baselines                          majority and three logistic regressions
    evaluate -> charts, card, report   score the test part once; one HTML file
    artifacts                          the run directory: complete or absent
    run, classify, demo                the three things a user does, each on one page

Letters in shapes: N items, B batch, T tokens, D hidden width, C classes, L hidden layers, F features, R resamples.
"""
