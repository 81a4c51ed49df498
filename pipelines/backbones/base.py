"""Backbone: a pretrained model with a classification head, whose parts have names.

::

    head        model's own: classifier, score, pooler ...      trained always
    final norm  (Llama, Qwen2, ModernBERT)                       trained with the last hidden layer
    hidden layer L-1
    ...
    hidden layer k        ^ top: trained
    --------------------- freeze depth k
    hidden layer k-1      v trunk: frozen, in eval mode
    ...
    hidden layer 0
    embeddings, and whatever all layers share (relative position biases)

Nothing above this module asks which modality it is serving.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from pipelines.weights import Weights

# Below the base model, by config.model_type.
_LAYERS = {
    "bert": "encoder.layer",
    "roberta": "encoder.layer",
    "xlm-roberta": "encoder.layer",
    "electra": "encoder.layer",
    "mpnet": "encoder.layer",
    "deberta-v2": "encoder.layer",
    "distilbert": "transformer.layer",
    "llama": "layers",
    "qwen2": "layers",
    "modernbert": "layers",
}
_FINAL_NORMS = ("norm", "final_norm")

Encoding = Any  # one item, ready to be collated; its type is the modality's


class Backbone(ABC):
    """A model with its head, and what turns content into its inputs.

    Attributes:
        model: the transformers model, head included; changed in place by training and LoRA.
        name: as in the config.
        weights: where the pretrained files are, with their digest.
        adapter: the PEFT wrapper around `model` while LoRA is attached.
    """

    def __init__(self, model: PreTrainedModel, name: str, weights: Weights) -> None:
        self.model = model
        self.name = name
        self.weights = weights
        self.adapter: PeftModel | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        names = self.model.config.id2label
        return tuple(names[number] for number in range(len(names)))

    @property
    def layers_path(self) -> str:
        """Module path of the list of hidden layers, from the top of the model."""
        return f"{self.model.base_model_prefix}.{_LAYERS[self.model.config.model_type]}"

    @property
    def depth(self) -> int:
        """L, the number of hidden layers."""
        return len(list(self.model.get_submodule(self.layers_path).children()))

    @property
    def head_paths(self) -> list[str]:
        """Module paths of the head: all with parameters outside the base model, and its pooler."""
        prefix = self.model.base_model_prefix
        paths = [n for n, m in self.model.named_children() if n != prefix and any(True for _ in m.parameters())]
        pooler = getattr(self.model.get_submodule(prefix), "pooler", None)
        return ([f"{prefix}.pooler"] if pooler is not None else []) + paths

    @property
    def final_norm_paths(self) -> list[str]:
        base = self.model.get_submodule(self.model.base_model_prefix)
        return [f"{self.model.base_model_prefix}.{name}" for name in _FINAL_NORMS if hasattr(base, name)]

    def scale_logits(self, factor: float) -> None:
        """Multiply every logit by a factor, in place: weight and bias of the head's last layer, whatever its name.

        Temperature scaling by 1 / T becomes part of the weights, so that every runtime of the model has it.
        """
        heads = [self.model.get_submodule(path).named_modules() for path in self.head_paths]
        linear = [m for head in heads for n, m in head if isinstance(m, nn.Linear) and "original_module" not in n]
        last = [module for module in linear if module.out_features == len(self.labels)][-1]
        with torch.no_grad():
            for parameter in last.parameters():
                parameter.mul_(factor)

    @property
    @abstractmethod
    def max_length(self) -> int:
        """Longest encoding; longer content is cut."""

    @abstractmethod
    def encode(self, contents: Sequence[str]) -> list[Encoding]:
        """Prepare N items for the model, one encoding each."""

    @abstractmethod
    def length(self, encoding: Encoding) -> int:
        """Size of one encoding, in tokens; batches are grouped by it."""

    @abstractmethod
    def collate(self, encodings: Sequence[Encoding]) -> dict[str, torch.Tensor]:
        """Model inputs of a batch; text: input_ids and attention_mask, both (B, T)."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write model and processor in the standard Hugging Face layout, as safetensors and JSON."""

    def hidden_states(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Last hidden layer of a batch without the head, (B, T, D)."""
        base: nn.Module = self.model.get_submodule(self.model.base_model_prefix)
        states: torch.Tensor = base(**inputs).last_hidden_state
        return states
