"""What each hidden layer of a fine-tuned model contributes: its macro-F1 with that one layer left out.

A layer left out passes on what it is given. Fan et al. 2019, "Reducing Transformer Depth on Demand with Structured
Dropout", arxiv.org/abs/1909.11556, prune so; nothing is trained again here, so a model may need a layer only because
the others expect it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from pipelines.backbones import Backbone
from pipelines.device import Precision
from pipelines.intervals import Bootstrap, interval
from pipelines.metrics import macro_f1
from pipelines.predict import predict_logits
from pipelines.records import Splits, column
from pipelines.sampling import at_most


def ablation(
    backbone: Backbone, splits: Splits, precision: Precision, most: int, resamples: int, seed: int
) -> dict[str, Any]:
    """Macro-F1 on the validation part, whole and without each hidden layer, with paired differences.

    Args:
        backbone: fine-tuned.
        most: validation items that are looked at: some, stratified.
        resamples: of the bootstrap.
        seed: of it, and of the choice of items.
    """
    items = at_most(splits.validation, most, seed)
    targets, groups = splits.targets(items), np.array(column(items, "group"))
    bootstrap = Bootstrap(targets, groups, len(splits.labels), resamples, seed)
    encodings = backbone.encode(column(items, "text"))

    def predicted() -> Any:
        return predict_logits(backbone, encodings, precision).argmax(axis=1)

    whole = predicted()
    score, resampled = macro_f1(targets, whole), bootstrap.scores(whole)["macro_f1"]
    rows = []
    for number, layer in enumerate(backbone.layers, start=1):
        with left_out(backbone, layer):
            without = predicted()
        difference = macro_f1(targets, without) - score
        ci = bootstrap.difference(bootstrap.scores(without)["macro_f1"], resampled, difference)
        rows.append({"layer": number, "difference": difference, "difference_ci": ci})
    return {"items": len(items), "macro_f1": score, "macro_f1_ci": interval(resampled), "without": rows}


@contextmanager
def left_out(backbone: Backbone, layer: torch.nn.Module) -> Iterator[None]:
    """Within it, a hidden layer returns the states that it is given."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        return backbone.layer_output(args[0] if args else kwargs["hidden_states"])

    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward
