"""Logits and embeddings of many items, in input order. Validation, test, classification and baselines all use this."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from scipy.special import softmax

from pipelines.activations import Computed
from pipelines.backbones import Backbone
from pipelines.backbones.base import Encoding
from pipelines.batches import token_batches
from pipelines.device import Precision, autocast, device
from pipelines.encoded import Encoded
from pipelines.lower_layers import LowerLayers
from pipelines.records import FloatArray, IntArray

BATCH_TOKENS = 4096  # padded; on two CPU cores larger batches gain nothing


def logits_of(items: Encoded, precision: Precision, accelerator: Accelerator | None = None) -> FloatArray:
    """Logits, (N, C), in input order.

    Args:
        items: N; their backbone is put into eval mode here.
        precision: of the forward pass; the result is float64.
        accelerator: shares the work among its processes; all get the whole result.
    """
    model = items.backbone.model.eval().to(device())
    with autocast(precision):
        return _each_batch(items.lengths, lambda numbers: items.logits(model, numbers), accelerator)


def predict_logits(backbone: Backbone, encodings: Sequence[Encoding], precision: Precision) -> FloatArray:
    """Logits, (N, C), in input order."""
    return logits_of(Encoded(backbone, encodings), precision)


def predict_probabilities(backbone: Backbone, encodings: Sequence[Encoding], precision: Precision) -> FloatArray:
    """Class probabilities, (N, C), in input order."""
    probabilities: FloatArray = softmax(predict_logits(backbone, encodings, precision), axis=1)
    return probabilities


def embed(backbone: Backbone, encodings: Sequence[Encoding], precision: Precision) -> FloatArray:
    """Masked mean of the last hidden layer, (N, D), in input order, as `LowerLayers` computes it."""
    computed = Computed(LowerLayers(backbone, backbone.depth, "mean", precision), encodings)
    lengths = [backbone.length(encoding) for encoding in encodings]
    return _each_batch(lengths, lambda numbers: computed.batch(numbers)[:, 0])


def embed_at(backbone: Backbone, encodings: Sequence[Encoding], layer: int, precision: Precision) -> FloatArray:
    """Masked mean after `layer` hidden layers, (N, D), in input order; 0 are the embeddings."""
    return embed_layers(backbone, encodings, precision, max(1, layer))[:, layer]


def embed_layers(backbone: Backbone, encodings: Sequence[Encoding], precision: Precision, depth: int) -> FloatArray:
    """Masked means after 0, 1, ... `depth` hidden layers, from one pass over N items.

    Returns:
        (N, depth + 1, D), in input order. The final norm that some models have above the last layer is left out.
    """
    lower = LowerLayers(backbone, depth, "tokens", precision)
    lengths = [backbone.length(encoding) for encoding in encodings]
    flat = _each_batch(lengths, lambda numbers: lower.means([encodings[i] for i in numbers]).flatten(1))
    return flat.reshape(len(encodings), -1, lower.width)


def _each_batch(
    lengths: Sequence[int], function: Callable[[IntArray], torch.Tensor], accelerator: Accelerator | None = None
) -> FloatArray:
    """Rows (B, F) of every batch of item numbers -> (N, F)."""
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    with torch.inference_mode():
        batches = token_batches(lengths, BATCH_TOKENS)[rank::world]
        done = [(batch, function(batch).float().cpu().numpy()) for batch in batches]
    if world > 1:
        done = gather_object(done)
    result = np.empty((len(lengths), done[0][1].shape[1]))
    for batch, rows in done:
        result[batch] = rows
    return result
