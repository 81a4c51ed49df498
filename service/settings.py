"""What the environment says.

ROOTSTOCK_STORE is the directory of hidden states (default: in the user's cache), ROOTSTOCK_STORE_GIB its size limit.
"""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

from pipelines.activation_store import ActivationStore
from pipelines.errors import ConfigError

STORE_GIB = 20.0


def default_store() -> ActivationStore:
    """The store of this user. Raises ConfigError for a limit that is no number above 0."""
    root = os.environ.get("ROOTSTOCK_STORE")
    limit = os.environ.get("ROOTSTOCK_STORE_GIB", "")
    try:
        size = float(limit or STORE_GIB)
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        raise ConfigError(f"ROOTSTOCK_STORE_GIB: expected a number of GiB above 0, found {limit!r}")
    path = Path(root).expanduser() if root else user_cache_path("rootstock") / "activations"
    return ActivationStore(path, round(size * 2**30))
