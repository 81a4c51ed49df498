"""Logits and embeddings of many items, in input order. Validation, test, classification and baselines all use this."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from scipy.special import softmax

from pipelines.backbones import Backbone
from pipelines.backbones.base import Encoding
from pipelines.batches import token_batches
from pipelines.device import Precision, autocast, device
from pipelines.records import FloatArray

BATCH_TOKENS = 4096  # padded; on two CPU cores larger batches gain nothing

BatchFunction = Callable[[dict[str, torch.Tensor]], torch.Tensor]


def predict_logits(
    backbone: Backbone, encodings: Sequence[Encoding], precision: Precision, accelerator: Accelerator | None = None
) -> FloatArray:
    """Logits, (N, C), in input order.

    Args:
        backbone: put into eval mode here.
        encodings: N prepared items.
        precision: of the forward pass; the result is float64.
        accelerator: shares the work among its processes; all get the whole result.
    """
    backbone.model.eval()
    return _each_batch(backbone, encodings, precision, lambda inputs: backbone.model(**inputs).logits, accelerator)


def predict_probabilities(backbone: Backbone, encodings: Sequence[Encoding], precision: Precision) -> FloatArray:
    """Class probabilities, (N, C), in input order."""
    probabilities: FloatArray = softmax(predict_logits(backbone, encodings, precision), axis=1)
    return probabilities


def embed(backbone: Backbone, encodings: Sequence[Encoding], precision: Precision) -> FloatArray:
    """Masked mean of the last hidden layer, (N, D), in input order."""

    def masked_mean(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        mask = inputs["attention_mask"].unsqueeze(-1).float()  # (B, T, 1)
        states = backbone.hidden_states(inputs).float()  # (B, T, D)
        return (states * mask).sum(dim=1) / mask.sum(dim=1)

    backbone.model.eval()
    return _each_batch(backbone, encodings, precision, masked_mean)


def _each_batch(
    backbone: Backbone,
    encodings: Sequence[Encoding],
    precision: Precision,
    function: BatchFunction,
    accelerator: Accelerator | None = None,
) -> FloatArray:
    backbone.model.to(device())
    batches = token_batches([backbone.length(encoding) for encoding in encodings], BATCH_TOKENS)
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    done = []
    with torch.inference_mode(), autocast(precision):
        for batch in batches[rank::world]:
            inputs = backbone.collate([encodings[i] for i in batch])
            values = function({name: tensor.to(device()) for name, tensor in inputs.items()})
            done.append((batch, values.float().cpu().numpy()))
    if world > 1:
        done = gather_object(done)
    width = done[0][1].shape[1]
    result = np.empty((len(encodings), width))
    for batch, rows in done:
        result[batch] = rows
    return result
