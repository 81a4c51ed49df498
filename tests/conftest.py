"""Shared fixtures: toy configs, the shared data sets, and one test process that never reaches a hub."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["ROOTSTOCK_STORE"] = tempfile.mkdtemp(prefix="rootstock-test-store-")  # never the user's own
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

from pipelines.config import RunConfig, parse_config
from tests.toys import toy_config


@pytest.fixture(scope="session", autouse=True)
def _no_store_left() -> Iterator[None]:
    yield
    shutil.rmtree(os.environ["ROOTSTOCK_STORE"], ignore_errors=True)


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., RunConfig]:
    """Builds a valid RunConfig on toy data; keyword arguments override its sections."""

    def make(**sections: Any) -> RunConfig:
        return parse_config(toy_config(tmp_path, **sections))

    return make


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The public data sets (ROOTSTOCK_DATA). Skips without them; ROOTSTOCK_REQUIRE_DATA=1 makes that a failure."""
    path = Path(os.environ.get("ROOTSTOCK_DATA", "../shared/data"))
    if not path.is_dir():
        message = f"the public data sets are not at {path}; set ROOTSTOCK_DATA (benchmarks/DATA.md)"
        if os.environ.get("ROOTSTOCK_REQUIRE_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return path
