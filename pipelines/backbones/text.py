"""Text encoders and decoders with their own sequence-classification head."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers.utils.logging as transformers_logging
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from pipelines.backbones.base import Backbone, Encoding
from pipelines.backbones.quantized import Bits, keep_gradients, quantization
from pipelines.config import BackboneConfig
from pipelines.errors import BackboneError, ConfigError
from pipelines.weights import Weights, check_directory, resolve, weights_sha256

OVERLAP = 4  # windows of a long text share one part in so many with the next


class TextBackbone(Backbone):
    """A transformers sequence classifier and its tokenizer.

    Args:
        model: with a head for C labels.
        tokenizer: cuts at its `model_max_length`.
        name: as in the config.
        weights: where the files are.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, weights: Weights) -> None:
        super().__init__(model, name, weights)
        self.tokenizer = tokenizer

    @property
    def max_length(self) -> int:
        return int(self.tokenizer.model_max_length)

    def encode(self, contents: Sequence[str]) -> list[Encoding]:
        """Token ids of N texts, cut at the tokenizer's maximum length."""
        if not contents:
            return []
        ids: list[list[int]] = self.tokenizer(
            list(contents), truncation=True, return_attention_mask=False, return_token_type_ids=False
        )["input_ids"]
        return ids

    def windows(self, contents: Sequence[str]) -> tuple[list[Encoding], list[int]]:
        """Token ids of N texts, in pieces of at most the maximum length that share a quarter with the next one."""
        if not contents:
            return [], []
        special = self.tokenizer.num_special_tokens_to_add()
        found = self.tokenizer(
            list(contents),
            truncation=True,
            stride=(self.max_length - special) // OVERLAP,
            return_overflowing_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return found["input_ids"], [int(item) for item in found["overflow_to_sample_mapping"]]

    def limit(self, max_length: int) -> None:
        special, most = self.tokenizer.num_special_tokens_to_add(), _positions(self.model)
        if not special < max_length <= most:
            raise ConfigError(
                f"max length: expected {special + 1} to {most:,} tokens for {self.name}, found {max_length:,}"
            )
        self.tokenizer.model_max_length = max_length

    def length(self, encoding: Encoding) -> int:
        return len(encoding)

    def collate(self, encodings: Sequence[Encoding], at_least: int = 0) -> dict[str, torch.Tensor]:
        """Right-padded input_ids and attention_mask, both (B, T)."""
        T = max(at_least, max(len(ids) for ids in encodings))
        input_ids = torch.full((len(encodings), T), self.tokenizer.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(input_ids)
        for row, ids in enumerate(encodings):
            input_ids[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = 1
        return {"input_ids": input_ids, "attention_mask": mask}

    def content(self, encoding: Encoding) -> bytes:
        """Token ids as 32-bit integers; token types and positions follow from them."""
        return np.asarray(encoding, dtype="<i4").tobytes()

    def processing(self) -> dict[str, Any]:
        """Digest of the tokenizer's own rules, without the settings of its last call; where texts are cut; and the
        padding token, by which decoders find the token that their heads read.
        """
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is not None:
            rules = json.loads(backend.to_str())
        else:  # one written in Python, such as BERTweet's
            name, settings = type(self.tokenizer).__name__, str(sorted(self.tokenizer.init_kwargs.items(), key=str))
            rules = {"class": name, "settings": settings, "vocabulary": self.tokenizer.get_vocab()}
        kept = json.dumps({k: rules[k] for k in rules if k not in ("truncation", "padding")}, sort_keys=True)
        digest, padding = hashlib.sha256(kept.encode()).hexdigest(), self.tokenizer.pad_token_id
        return {"tokenizer": digest, "max_length": self.max_length, "padding": padding}

    def pooled_position(self, encoding: Encoding) -> int:
        """0, or the rightmost token that is no padding, which is how the heads of decoders find the last token."""
        if self.pooling == "first":
            return 0
        return max((i for i, token in enumerate(encoding) if token != self.tokenizer.pad_token_id), default=0)

    def only(self, encoding: Encoding, position: int) -> Encoding:
        return [encoding[position]]

    def located(self, content: str) -> tuple[Encoding, list[tuple[int, int] | None], int]:
        """Token ids as `encode` gives them, the characters of each token, and how many tokens are cut off.

        Raises:
            BackboneError: the tokenizer is one written in Python, such as BERTweet's, which knows no characters.
        """
        if not self.tokenizer.is_fast:
            name = type(self.tokenizer).__name__
            raise BackboneError(
                f"{self.name}: expected a tokenizer with tokenizer.json, which says where its tokens "
                f"stand in a text; found {name}, which does not"
            )
        found = self.tokenizer(content, truncation=True, return_offsets_mapping=True, return_special_tokens_mask=True)
        whole = self.tokenizer(content, truncation=False, verbose=False)["input_ids"]
        pairs = zip(found["offset_mapping"], found["special_tokens_mask"], strict=True)
        spans = [None if special else (int(span[0]), int(span[1])) for span, special in pairs]
        return found["input_ids"], spans, len(whole) - len(spans)

    def blanked(self, encoding: Encoding, positions: Sequence[int]) -> Encoding:
        """Token ids with a blank at these positions: padding, unless its word embedding is zero.

        Padding is what a model is most neutral about. Of a MiniLM fine-tuned on 425 texts, the two logits of a text
        of nothing else differ by 1.7 at most (30 texts); by 3.0 with the unknown token, by 5.0 with the mask token.
        A zero vector has no direction, so that the RMSNorm of decoders jumps there: 128 steps towards it missed a
        tenth on half of the texts of a random Llama, 16 towards the unknown token nothing.
        """
        table = self.model.get_input_embeddings().weight
        known = (self.tokenizer.pad_token_id, self.tokenizer.unk_token_id, self.tokenizer.mask_token_id)
        named = [int(token) for token in known if token is not None]
        blank = next((token for token in named if bool(table[token].any())), named[0])
        chosen = set(positions)
        return [blank if place in chosen else token for place, token in enumerate(encoding)]

    def save(self, path: Path) -> None:
        with quiet():
            self.model.save_pretrained(path)
        self.tokenizer.save_pretrained(path)


def load_text_backbone(
    config: BackboneConfig, labels: Sequence[str], max_length: int, seed: int, bits: Bits | None = None
) -> TextBackbone:
    """Load verified weights under a new head. A head that comes with the weights is kept where its shape fits.

    Args:
        config: name, revision.
        labels: C labels as the user wrote them, in class order.
        max_length: tokens; longer texts are cut, and the saved tokenizer says so.
        seed: of the head's initial weights.
        bits: of the matrices of the hidden layers, instead of the 32 that are the default.

    Raises:
        BackboneError: weights not found, not trusted, or without the hidden layers that the architecture needs.
        ConfigError: fewer bits need a library that is not there.
    """
    weights = resolve(config)
    options = {} if bits is None else quantization(bits, _head_paths(weights))
    torch.manual_seed(seed)
    with quiet():
        model, report = _from_pretrained(
            weights.path,
            num_labels=len(labels),
            problem_type="single_label_classification",  # the directory's own config may say another
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
    if bits is not None:
        keep_gradients(model)
    backbone = _with_tokenizer(model, config.name, weights)
    heads = tuple(path + "." for path in backbone.head_paths)
    missing = {
        key if isinstance(key, str) else key[0] for name in ("missing_keys", "mismatched_keys") for key in report[name]
    }
    strange = sorted(key for key in missing if not key.startswith(heads))
    if strange:
        raise BackboneError(
            f"{weights.path}: {len(strange)} weights of the hidden layers are missing or of another shape, such as "
            f"{strange[0]!r}; the file does not fit its config.json"
        )
    limit = min(max_length, _positions(model), backbone.tokenizer.model_max_length)
    backbone.tokenizer.model_max_length = limit
    return backbone


def _head_paths(weights: Weights) -> list[str]:
    """Module paths of the head that a model of this directory would have. Raises BackboneError."""
    safely = {"local_files_only": True, "trust_remote_code": False}
    try:
        with torch.device("meta"):
            plan = AutoConfig.from_pretrained(weights.path, **safely)
            model = AutoModelForSequenceClassification.from_config(plan)
    except Exception as error:
        raise BackboneError(f"{weights.path}: cannot be loaded: {_first_line(error)}") from None
    tokenizer: Any = None
    return TextBackbone(model, tokenizer, "", weights).head_paths


def continue_text_backbone(path: Path, name: str, labels: Sequence[str], max_length: int, seed: int) -> TextBackbone:
    """Load the `model/` of a run directory to train it further. New classes get new rows in the head's last layer.

    Args:
        path: the directory.
        name: shown in messages.
        labels: C labels, those of the saved model first, in its order.
        max_length: tokens.
        seed: of the new rows' initial weights.

    Raises:
        BackboneError: see `load_saved_model`; or the saved labels do not come first.
    """
    saved = load_saved_model(path)
    known = saved.labels
    if tuple(labels[: len(known)]) != known:
        raise BackboneError(f"{path}: expected its labels {', '.join(known)} first, found {', '.join(labels)}")
    torch.manual_seed(seed)
    model = saved.model if len(labels) == len(known) else _with_more_labels(saved, path, labels)
    backbone = TextBackbone(model, saved.tokenizer, name, saved.weights)
    backbone.tokenizer.model_max_length = min(max_length, _positions(model))
    return backbone


def _with_more_labels(saved: TextBackbone, path: Path, labels: Sequence[str]) -> PreTrainedModel:
    """The saved model with new rows after those that it has, in every tensor whose shape depends on C."""
    with quiet():
        model, _ = _from_pretrained(
            path,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    grown, old = model.state_dict(), saved.model.state_dict()
    with torch.no_grad():
        for key in (key for key in grown if grown[key].shape != old[key].shape):
            grown[key][: len(saved.labels)] = old[key]
    model.config.pad_token_id = saved.model.config.pad_token_id
    return model


def load_saved_model(path: Path) -> TextBackbone:
    """Load the `model/` of a run directory, its trained head included. Raises BackboneError."""
    check_directory(path)
    with quiet():
        model, report = _from_pretrained(path, output_loading_info=True)
    if report["missing_keys"]:
        raise BackboneError(f"{path}: the weight {sorted(report['missing_keys'])[0]!r} is missing")
    return _with_tokenizer(model, str(path), Weights(path, None, weights_sha256(path)))


def _from_pretrained(path: Path, **options: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    try:
        loaded: tuple[PreTrainedModel, dict[str, Any]] = AutoModelForSequenceClassification.from_pretrained(
            path, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False, **options
        )
    except Exception as error:  # the file's fault, whatever the library calls it
        raise BackboneError(f"{path}: cannot be loaded: {_first_line(error)}") from None
    return loaded


def _with_tokenizer(model: PreTrainedModel, name: str, weights: Weights) -> TextBackbone:
    try:
        tokenizer = AutoTokenizer.from_pretrained(weights.path, local_files_only=True, trust_remote_code=False)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a broken tokenizer.json raises pyo3's PanicException, which is no Exception
        raise BackboneError(f"{weights.path}: the tokenizer cannot be loaded: {_first_line(error)}") from None
    if tokenizer.pad_token_id is None:  # decoders; padding is masked, so any known token serves
        if tokenizer.eos_token is None:
            raise BackboneError(f"{weights.path}: the tokenizer has neither a padding nor an end token")
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    tokenizer.truncation_side = "right"
    model.config.pad_token_id = tokenizer.pad_token_id
    return TextBackbone(model, tokenizer, name, weights)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _positions(model: PreTrainedModel) -> int:
    """How many tokens the model can take. RoBERTa's positions start behind the padding index."""
    positions = getattr(model.config, "max_position_embeddings", None) or sys.maxsize
    offset = model.config.pad_token_id + 1 if model.config.model_type in ("roberta", "xlm-roberta", "mpnet") else 0
    return int(positions - offset)


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no report about the new head, which is what we asked for."""
    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
