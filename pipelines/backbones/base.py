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
from typing import Any, Literal

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
FINAL_NORMS = ("norm", "final_norm")
_TUPLE_LAYERS = ("mpnet", "deberta-v2")  # their hidden layers return (states, attentions)
_LAST_TOKEN_HEADS = ("llama", "qwen2")  # their heads read the last token, all others the first

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
        return f"{self.model.base_model_prefix}.{self.inner_layers_path}"

    @property
    def inner_layers_path(self) -> str:
        """The same from the base model."""
        return _LAYERS[self.model.config.model_type]

    @property
    def layers(self) -> list[nn.Module]:
        """The L hidden layers, lowest first."""
        return list(self.model.get_submodule(self.layers_path).children())

    @property
    def depth(self) -> int:
        """L, the number of hidden layers."""
        return len(self.layers)

    @property
    def base(self) -> nn.Module:
        """The model without its head (but with the pooler, where it has one)."""
        return self.model.get_submodule(self.model.base_model_prefix)

    @property
    def quantized(self) -> bool:
        """Its hidden layers hold their matrices in 8 or 4 bits."""
        return getattr(self.model, "quantization_method", None) is not None

    def layer_output(self, states: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, None]:
        """Hidden states (B, T, D) in the shape that the model expects one of its hidden layers to return."""
        return (states, None) if self.model.config.model_type in _TUPLE_LAYERS else states

    @property
    def pooling(self) -> Literal["first", "last"] | None:
        """The one token whose last hidden state is all that the head reads; None if it reads more than one."""
        config = self.model.config
        if getattr(config, "classifier_pooling", "cls") != "cls":
            return None
        return "last" if config.model_type in _LAST_TOKEN_HEADS else "first"

    @property
    def head_paths(self) -> list[str]:
        """Module paths of the head: all with parameters outside the base model, and its pooler."""
        prefix = self.model.base_model_prefix
        paths = [n for n, m in self.model.named_children() if n != prefix and any(True for _ in m.parameters())]
        pooler = getattr(self.base, "pooler", None)
        return ([f"{prefix}.pooler"] if pooler is not None else []) + paths

    @property
    def final_norm_paths(self) -> list[str]:
        return [f"{self.model.base_model_prefix}.{name}" for name in FINAL_NORMS if hasattr(self.base, name)]

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
    def windows(self, contents: Sequence[str]) -> tuple[list[Encoding], list[int]]:
        """Like `encode`, but longer content becomes several encodings that overlap; and the item of each, (M,)."""

    @abstractmethod
    def limit(self, max_length: int) -> None:
        """Set `max_length`. Raises ConfigError for more than the model can take."""

    @abstractmethod
    def length(self, encoding: Encoding) -> int:
        """Size of one encoding, in tokens; batches are grouped by it."""

    @abstractmethod
    def collate(self, encodings: Sequence[Encoding], at_least: int = 0) -> dict[str, torch.Tensor]:
        """Model inputs of a batch; text: input_ids and attention_mask, both (B, T).

        T is the length of the longest, or `at_least`; what is behind an item is masked.
        """

    @abstractmethod
    def content(self, encoding: Encoding) -> bytes:
        """Everything in an encoding that the model sees: items of equal content have equal hidden states."""

    @abstractmethod
    def processing(self) -> dict[str, Any]:
        """What turns content into encodings, as JSON: settings and digests."""

    @abstractmethod
    def pooled_position(self, encoding: Encoding) -> int:
        """Where in an encoding the token of `pooling` stands."""

    @abstractmethod
    def only(self, encoding: Encoding, position: int) -> Encoding:
        """The encoding of one token alone."""

    @abstractmethod
    def located(self, content: str) -> tuple[Encoding, list[tuple[int, int] | None], int]:
        """The encoding of one item; for each of its T tokens which part of the content it stands for; what was cut.

        A part of a text is (start, end) in characters; a token that stands for none, such as one that the model asks
        for at the start, has None. What was cut off is counted in tokens. Raises BackboneError where it cannot say.
        """

    @abstractmethod
    def blanked(self, encoding: Encoding, positions: Sequence[int]) -> Encoding:
        """The encoding with a token that says nothing at these positions; its length stays."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write model and processor in the standard Hugging Face layout, as safetensors and JSON."""
