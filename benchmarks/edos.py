"""EDOS as the benchmarks use it: configs/edos.yaml on the official files, wherever they lie."""

from __future__ import annotations

import json
import os
from pathlib import Path

CONFIG = Path(__file__).parents[1] / "configs" / "edos.yaml"


def data_root() -> Path:
    """The folder of the data sets: the environment variable ROOTSTOCK_DATA, else ../shared/data."""
    return Path(os.environ.get("ROOTSTOCK_DATA", "../shared/data"))


def edos_file() -> Path:
    """All three official parts in one table. Raises FileNotFoundError with what to do."""
    path = data_root() / "edos" / "edos_labelled_aggregated.csv.gz"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: get it as benchmarks/DATA.md says, and set ROOTSTOCK_DATA to its parent folder"
        )
    return path


def path_overrides() -> list[str]:
    """`--set` values that point configs/edos.yaml at the data."""
    path = json.dumps(str(edos_file()))
    return [f"data.{part}.path={path}" for part in ("train", "test")]
