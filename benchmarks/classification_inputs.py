"""What the rows of `benchmarks.classification` read: texts, fp32 reference labels, graphs, held-out items.

`benchmarks.classification_models` makes it, in one folder. Nothing here imports what training needs: it would count as
memory of the systems that are measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAIN = "edos"  # the model that all single-model rows run
TINY = "tiny"  # its layers cost next to nothing: what is left is reading, tokenizing and writing
CLIENTS, DEPTHS = 10, (4, 5)
MAX_LENGTH = 128
STRATA = 200  # lengths: every STRATA texts in a row have the same distribution of lengths as all
POOL, CLIENT_POOL, WARM = 20_000, 2_000, 2 * STRATA  # texts to measure on; of them with clients' labels; to warm up on
SETS = ("edos", "davidson", "crisislex")  # of the cascade; each also names a model


def clients(depth: int) -> list[str]:
    """Names of the models with this many frozen layers."""
    return [f"client-k{depth}-{number}" for number in range(CLIENTS)]


# ---- texts and labels


@dataclass(frozen=True)
class Texts:
    """Distinct real texts; any multiple of STRATA of them, counted from the first, has the lengths of all.

    Attributes:
        texts: POOL to measure on, then WARM to warm up on.
        tokens: of each, special ones included, cut at MAX_LENGTH.
    """

    texts: list[str]
    tokens: list[int]

    def first(self, count: int) -> tuple[list[str], list[int]]:
        """Texts to measure on and their tokens."""
        assert count <= len(self.texts) - WARM
        return self.texts[:count], self.tokens[:count]

    @property
    def warm(self) -> list[str]:
        return self.texts[-WARM:]


def read_texts(folder: Path) -> Texts:
    """The texts of every row."""
    return Texts(**json.loads((folder / "texts.json").read_text(encoding="utf-8")))


def read_reference(folder: Path, name: str) -> NDArray[np.str_]:
    """What `transformers` says in fp32, (POOL,) or, of a client, (CLIENT_POOL,)."""
    return np.array(json.loads(reference_file(folder, name).read_text(encoding="utf-8")))


def sized_file(folder: Path, rows: int) -> Path:
    """That many rows: the texts over and over, each with a prefix of its own. Written when first asked for."""
    path, texts = folder / f"rows-{rows}.jsonl", read_texts(folder).texts[:POOL]
    write_rows(path, ({"text": f"{i:07d} {texts[i % len(texts)]}"} for i in range(rows)))
    return path


def reference_file(folder: Path, name: str) -> Path:
    return folder / f"{name}-reference.json"


# ---- items for the cascade


def calibration_file(folder: Path, name: str) -> Path:
    """Labelled items that the run of this name has not seen, in its columns."""
    return folder / f"{name}-calibration.jsonl"


def scored_file(folder: Path, name: str) -> Path:
    """Other labelled items that it has not seen: its test part, and more where there are more."""
    return folder / f"{name}-scored.jsonl"


# ---- exported graphs


def onnx_file(folder: Path) -> Path:
    """The main model in fp32."""
    return next((folder / "exported" / "onnx").rglob("*.onnx"))


def int8_file(folder: Path) -> Path:
    """The same with weights in int8, activations quantised as they come."""
    return folder / "int8.onnx"


def openvino_file(folder: Path) -> Path:
    """The main model as OpenVINO keeps it."""
    return next((folder / "exported" / "openvino").rglob("*.xml"))


def export_seconds(folder: Path) -> dict[str, float]:
    """What making the graphs took, checks of them included: onnx, int8, openvino."""
    seconds: dict[str, float] = json.loads((folder / "export_seconds.json").read_text(encoding="utf-8"))
    return seconds


# ---- writing


def write_rows(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """JSONL, unless the file is there."""
    if not path.exists():
        write_lines(path, rows)


def write_lines(path: Path, values: Iterable[Any]) -> None:
    """JSON values, one a line; a file is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    partial.rename(path)
