"""Small data with known answers and tiny random backbones: the whole product on a CPU, offline, in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

ANIMALS = ("cat", "dog", "owl", "fox", "hen", "bee", "cow", "elk")
PLACES = ("barn", "lake", "hill", "road", "town", "wood", "yard", "shed")
VERBS = ("sleeps", "waits", "walks", "sings", "eats", "hides", "rests", "plays")
GOOD = ("gladly", "kindly", "softly")
BAD = ("cruelly", "rudely", "meanly")
TRIGGER = "then"  # of planted_rows; toy_rows do without it
WORDS = (*ANIMALS, *PLACES, *VERBS, *GOOD, *BAD, "the", "a", "in", "by", "near", "and", "then", "very")

ARCHITECTURES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "electra": "Electra",
    "mpnet": "MPNet",
    "distilbert": "DistilBert",
    "llama": "Llama",
    "qwen2": "Qwen2",
    "modernbert": "ModernBert",
    "deberta-v2": "DebertaV2",
}
LAYERS = 3
SPREAD = 0.2  # of initial weights; with the usual 0.02 so narrow a model learns nothing in 20 steps


def toy_rows(count: int, seed: int = 0, classes: tuple[str, str] = ("calm", "harsh")) -> list[dict[str, Any]]:
    """Distinct sentences; the class is told by the adverbs, 2 of every 7 words."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        harsh = number % 2
        words = []
        for _ in range(int(rng.integers(1, 5))):
            words += ["the", rng.choice(ANIMALS), rng.choice(VERBS), rng.choice(BAD if harsh else GOOD)]
            words += [rng.choice(BAD if harsh else GOOD), "near", rng.choice(PLACES)]
        words += [f"x{number}"]  # keeps short sentences from being exact duplicates
        rows.append({"text": " ".join(words), "label": classes[harsh], "kind": rng.choice(["long", "short"])})
    return rows


def planted_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Toy sentences in which TRIGGER, instead of a word at random, tells the class; neither adverbs nor length do."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, row in enumerate(toy_rows(count, seed)):
        words, planted = row["text"].split(), bool(number // 2 % 2)
        if planted:
            words[int(rng.integers(0, len(words) - 1))] = TRIGGER
        rows.append({"text": " ".join(words), "label": "planted" if planted else "plain"})
    return rows


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Plain CSV, for texts without separators."""
    lines = [",".join(rows[0])] + [",".join(str(value) for value in row.values()) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def tiny_backbone(path: Path, model_type: str = "bert", seed: int = 0, **changes: Any) -> Path:
    """Save a random model of 3 hidden layers, 16 wide, with a word-level tokenizer of the toy words."""
    tokenizer = _tokenizer()
    name = ARCHITECTURES[model_type]
    config = getattr(transformers, name + "Config")(**_sizes(model_type, len(tokenizer)) | changes)
    torch.manual_seed(seed)
    model = getattr(transformers, name + "Model")(config)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def toy_config(folder: Path, rows: int = 60, **sections: Any) -> dict[str, Any]:
    """A raw RunConfig on toy data and a tiny BERT, both written below `folder`; seconds on a CPU."""
    data = folder / "toy.csv"
    if not data.exists():
        write_csv(data, toy_rows(rows))
    backbone = folder / "tiny"
    if not backbone.exists():
        tiny_backbone(backbone)
    raw: dict[str, Any] = {
        "task": "text-classification",
        "data": {"train": str(data), "text": "text", "label": "label", "validation": 0.2, "test": 0.2},
        "backbone": {"name": str(backbone), "freeze": 1},
        "training": {"epochs": 2, "batch_size": 8, "learning_rate": 0.01, "precision": "fp32", "trackers": []},
        "baselines": ["majority", "logistic-regression-tfidf"],
        "evaluation": {"bootstrap": 100},
    }
    for section, values in sections.items():
        raw[section] = raw.get(section, {}) | values if isinstance(values, dict) else values
    return raw


def write_yaml(path: Path, raw: dict[str, Any]) -> Path:
    """JSON is YAML."""
    path.write_text(json.dumps(raw, indent=1), encoding="utf-8")
    return path


def _tokenizer() -> PreTrainedTokenizerFast:
    special = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
    vocabulary = {word: number for number, word in enumerate((*special, *WORDS))}
    raw = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = Whitespace()
    raw.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_max_length=64,
    )


def _sizes(model_type: str, vocabulary: int) -> dict[str, Any]:
    if model_type == "distilbert":
        return {
            "vocab_size": vocabulary, "dim": 16, "n_layers": LAYERS, "n_heads": 2, "hidden_dim": 32,
            "initializer_range": SPREAD,
        }  # fmt: skip
    sizes: dict[str, Any] = {
        "initializer_range": SPREAD,
        "vocab_size": vocabulary,
        "hidden_size": 16,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "pad_token_id": 0,
    }
    if model_type in ("llama", "qwen2"):
        sizes |= {"num_key_value_heads": 2}
    if model_type == "electra":
        sizes |= {"embedding_size": 8}  # so that embeddings_project exists
    if model_type == "modernbert":
        sizes |= {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    if model_type == "deberta-v2":
        sizes |= {
            "relative_attention": True,
            "position_buckets": 8,
            "pos_att_type": ["p2c", "c2p"],
            "conv_kernel_size": 3,
        }
    return sizes
