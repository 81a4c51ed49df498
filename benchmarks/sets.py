"""The data sets of the benchmarks: a config each, on files that lie wherever ROOTSTOCK_DATA says."""

from __future__ import annotations

import json
import os
from pathlib import Path

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = {
    "edos": {"train": "edos/edos_labelled_aggregated.csv.gz", "test": "edos/edos_labelled_aggregated.csv.gz"},
    "davidson": {"train": "davidson/labeled_data.csv.gz"},
    "banking77": {"train": "banking77/train.csv.gz", "test": "banking77/test.csv.gz"},
}
CONFIG = CONFIGS / "edos.yaml"


def data_root() -> Path:
    """The folder of the data sets: the environment variable ROOTSTOCK_DATA, else ../shared/data."""
    return Path(os.environ.get("ROOTSTOCK_DATA", "../shared/data"))


def data_file(name: str, part: str = "train") -> Path:
    """The file of one part of a set. Raises FileNotFoundError with what to do."""
    path = data_root() / FILES[name][part]
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: get it as benchmarks/DATA.md says, and set ROOTSTOCK_DATA to the parent of its folder"
        )
    return path


def path_overrides(name: str) -> list[str]:
    """`--set` values that point `configs/<name>.yaml` at the data."""
    return [f"data.{part}.path={json.dumps(str(data_file(name, part)))}" for part in FILES[name]]
