"""What `benchmarks.classification` runs on, made once: models, texts, fp32 reference labels, exported graphs.

Everything lies in one folder, is not tracked, and is skipped where it is there. Three models with a cascade's
calibration items (EDOS, Davidson, CrisisLex), and ten clients' models on one trunk at each of two depths; the clients
are there for speed alone and hence trained on few items for one epoch. All cut texts at 128 tokens, freeze 4 layers
(the second ten clients: 5), and come out of `pipelines.run.finetune`.
"""

from __future__ import annotations

import csv
import gzip
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModel, AutoTokenizer

from benchmarks.classification_inputs import (
    CLIENT_POOL,
    DEPTHS,
    MAIN,
    MAX_LENGTH,
    POOL,
    SETS,
    STRATA,
    TINY,
    WARM,
    calibration_file,
    clients,
    int8_file,
    onnx_file,
    read_texts,
    reference_file,
    scored_file,
    write_lines,
    write_rows,
)
from benchmarks.classification_peers import PlainTorch, quantise
from benchmarks.sets import data_file, data_root
from benchmarks.training_sizes import SOURCES
from pipelines.backbones import load_saved_model
from pipelines.config import EMBEDDED_BACKBONE, BackboneConfig, DataConfig, RunConfig, parse_config
from pipelines.data import load_splits, read_items
from pipelines.duplicates import group_items
from pipelines.records import column
from pipelines.run import finetune
from pipelines.weights import resolve

CASCADE_TRAIN = 4_000  # items at most, validation among them
CALIBRATION, SCORED = 5_000, 10_000  # items at most, none of them trained or validated on
CLIENT_ITEMS = 1_000


def prepare(folder: Path) -> None:
    """Make what is missing. Takes tens of minutes on two cores."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_crisislex(folder)
    _write_clients(folder)
    _write_tiny_backbone(folder)
    for name, config in configs(folder).items():
        if not (folder / name).is_dir():
            _say(f"fine-tuning {name}")
            for _ in finetune(config, folder / name, resume=True):
                pass
    for name in SETS:
        _write_held_out(folder, name)
    _export(folder)
    _write_texts(folder)
    for name in configs(folder):
        _write_reference(folder, name)


def _say(what: str) -> None:
    print(what, file=sys.stderr)


# ---- models


def configs(folder: Path) -> dict[str, RunConfig]:
    """Every model and how it is made."""
    quick = ["majority", "logistic-regression-manual", "logistic-regression-tfidf"]  # what a cascade may answer with
    made = {name: _config(_data(folder, name), 4, quick) for name in SETS}
    for depth in DEPTHS:
        for number, name in enumerate(clients(depth)):
            data = {"train": str(folder / "clients.jsonl"), "label": ("label_sexist", "label_category")[number % 2]}
            made[name] = _config(data, depth, ["majority"], seed=number, epochs=1)
    clients_data = {"train": str(folder / "clients.jsonl"), "label": "label_sexist"}
    made[TINY] = _config(clients_data, 1, ["majority"], epochs=1, backbone=str(_tiny_backbone(folder)))
    return made


def _data(folder: Path, name: str) -> dict[str, Any]:
    if name == "edos":  # configs/edos.yaml, but with the official dev part to validate on
        parts = {n: {"path": str(data_file("edos")), "where": {"split": s}} for n, s in _OFFICIAL.items()}
        return parts | {"label": "label_sexist", "id": "rewire_id", "max_train_items": 2000}
    train: dict[str, Any]
    if name == "davidson":
        train = {"train": str(data_file("davidson")), "text": "tweet", "label": "class"}
    else:
        train = {"train": str(folder / "crisislex.jsonl"), "label": "label", "test": 0.1}
    return train | {"max_train_items": CASCADE_TRAIN}


_OFFICIAL = {"train": "train", "validation": "dev", "test": "test"}


def _config(
    data: dict[str, Any],
    depth: int,
    baselines: list[str],
    seed: int = 0,
    epochs: int = 3,
    backbone: str = EMBEDDED_BACKBONE,
) -> RunConfig:
    raw: dict[str, Any] = {
        "task": "text-classification",
        "data": {"text": "text", "max_length": MAX_LENGTH} | data,
        "backbone": {"name": backbone, "freeze": depth},
        "training": {"seed": seed, "epochs": epochs},
        "baselines": baselines,
    }
    return parse_config(raw)


def _tiny_backbone(folder: Path) -> Path:
    return folder / "tiny-backbone"


def _write_tiny_backbone(folder: Path) -> None:
    """MiniLM's tokenizer, two layers of width 32, untrained."""
    if (_tiny_backbone(folder) / "config.json").exists():
        return
    source = resolve(BackboneConfig()).path
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    AutoTokenizer.from_pretrained(source).save_pretrained(_tiny_backbone(folder))
    AutoModel.from_config(AutoConfig.from_pretrained(source, **sizes)).save_pretrained(_tiny_backbone(folder))


def _write_crisislex(folder: Path) -> None:
    rows = ({"text": row["text"], "label": row["label"]} for row in _rows("crisislex_t6/*.csv.gz"))
    write_rows(folder / "crisislex.jsonl", rows)


def _write_clients(folder: Path) -> None:
    """A few of the official EDOS training items, with both label columns."""
    if (folder / "clients.jsonl").exists():
        return
    rows = [row for row in _rows("edos/*.csv.gz") if row["split"] == "train"]
    chosen = np.random.default_rng(0).choice(len(rows), CLIENT_ITEMS, replace=False)
    fields = ("text", "label_sexist", "label_category")
    write_rows(folder / "clients.jsonl", ({field: rows[i][field] for field in fields} for i in chosen))


# ---- items for the cascade


def _write_held_out(folder: Path, name: str) -> None:
    """Calibration items are what `max_train_items` left out, less near duplicates of anything used elsewhere."""
    if calibration_file(folder, name).exists():
        return
    _say(f"items for the cascade of {name}")
    data = configs(folder)[name].data
    splits = load_splits(data, seed=0)
    pool = read_items(data.train, data)
    taken = [text for part in (splits.train, splits.validation, splits.test) for text in column(part, "text")]
    groups = group_items([*taken, *column(pool, "text")], [])
    known, groups = groups[: len(taken)], groups[len(taken) :]
    fresh = np.unique(groups[~np.isin(groups, known)])
    order = np.random.default_rng(0).permutation(fresh)
    sizes = np.bincount(groups)[order].cumsum()
    calibration = np.flatnonzero(np.isin(groups, order[sizes <= CALIBRATION]))
    more = np.flatnonzero(np.isin(groups, order[(sizes > CALIBRATION) & (sizes <= CALIBRATION + SCORED)]))
    scored = concatenate_datasets([part.select_columns(["text", "label"]) for part in (splits.test, pool.select(more))])
    scored = scored.select(range(min(SCORED, len(scored))))
    write_rows(scored_file(folder, name), _labelled(scored, data))
    write_rows(calibration_file(folder, name), _labelled(pool.select(calibration), data))


def _labelled(items: Dataset, data: DataConfig) -> Iterator[dict[str, str]]:
    pairs = zip(column(items, "text"), column(items, "label"), strict=True)
    return ({data.text: text, data.label: label} for text, label in pairs)


# ---- exported graphs


def _export(folder: Path) -> None:
    if (folder / "export_seconds.json").exists():
        return
    from pipelines.export import export  # needs the optional packages

    shutil.rmtree(folder / "exported", ignore_errors=True)  # of a preparation that was stopped
    seconds = {}
    for format in ("onnx", "openvino"):
        _say(f"exporting {format}")
        started = time.perf_counter()
        export(folder / MAIN, (format,), folder / "exported" / format)
        seconds[format] = time.perf_counter() - started
    started = time.perf_counter()
    quantise(onnx_file(folder), int8_file(folder))
    seconds["int8"] = seconds["onnx"] + time.perf_counter() - started
    write_lines(folder / "export_seconds.json", [seconds])


# ---- texts


def _write_texts(folder: Path) -> None:
    if (folder / "texts.json").exists():
        return
    distinct = list(dict.fromkeys(row[field] for pattern, field in SOURCES.items() for row in _rows(pattern)))
    rng = np.random.default_rng(0)
    texts = [distinct[i] for i in rng.permutation(len(distinct))[: POOL + WARM]]
    backbone = load_saved_model(folder / MAIN / "model")
    tokens = np.array([backbone.length(encoding) for encoding in backbone.encode(texts)])
    order = balanced_order(tokens, rng)
    chosen = {"texts": [texts[i] for i in order], "tokens": tokens[order].tolist()}
    write_lines(folder / "texts.json", [chosen])


def balanced_order(lengths: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """A random order in which each STRATA items hold one of every stratum of lengths. N is a multiple of STRATA."""
    strata = np.argsort(lengths, kind="stable").reshape(STRATA, -1)
    return rng.permuted(rng.permuted(strata, axis=1).T, axis=1).ravel()


def _write_reference(folder: Path, name: str) -> None:
    path = reference_file(folder, name)
    wanted = POOL if name == MAIN else CLIENT_POOL if name.startswith("client") else 0
    if path.exists() or not wanted:
        return
    _say(f"fp32 labels of {name}")
    plain = PlainTorch(folder / name / "model")
    plain.load()
    labels = plain.labels(read_texts(folder).first(wanted)[0]).tolist()
    assert name != MAIN or len(set(labels)) > 1, "a model with one answer would agree with anything"
    write_lines(path, [labels])


# ---- rows


def _rows(pattern: str) -> Iterator[dict[str, str]]:
    paths = sorted(data_root().glob(pattern))
    if not paths:
        raise FileNotFoundError(f"{data_root() / pattern}: get it as benchmarks/DATA.md says")
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)
