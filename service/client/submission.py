"""A run's YAML -> a fine-tuning call: files are uploaded, everything else goes along as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.config import EMBEDDED_BACKBONE, read_yaml
from pipelines.errors import ConfigError

SECTIONS = ("task", "backbone", "adapter", "training", "baselines", "evaluation")
COLUMNS = ("text", "label", "id", "group", "slices", "max_train_items", "max_length")


def read_submission(config: Path, data: Path | None) -> tuple[Path, Path | None, dict[str, Any]]:
    """Training file, validation file, and the body of the call but for the ids of those.

    Raises:
        ConfigError: the YAML cannot be read, or it asks for what a service does not do.
    """
    raw = read_yaml(config)
    section = dict(raw.get("data") or {})
    train = data or _file(section.get("train"), "data.train")
    if train is None:
        raise ConfigError(f"{config}: no training file; name one with --data FILE or data.train")
    validation = _file(section.get("validation"), "data.validation")
    _refuse(config, raw, section)
    body: dict[str, Any] = {name: raw[name] for name in SECTIONS if name in raw}
    backbone = dict(body.get("backbone") or {})
    body["model"] = str(raw.get("start_from") or backbone.pop("name", EMBEDDED_BACKBONE))
    body["backbone"] = backbone
    kept = {name: section[name] for name in COLUMNS if name in section}
    kept |= {name: section[name] for name in ("validation", "test") if isinstance(section.get(name), float)}
    return train, validation, body | {"data": kept}


def _file(value: Any, key: str) -> Path | None:
    if isinstance(value, Mapping):
        if value.get("where"):
            raise ConfigError(
                f"{key}: a service takes whole files; write the rows that `where` chooses to one of their own"
            )
        value = value.get("path")
    return Path(value) if isinstance(value, str) else None


def _refuse(config: Path, raw: Mapping[str, Any], section: Mapping[str, Any]) -> None:
    if isinstance(section.get("test"), str | Mapping):
        raise ConfigError(f"{config}: data.test: a service cuts the test part itself; leave it out, or give a fraction")
    known = {*SECTIONS, "data", "start_from", "output"}
    unknown = [name for name in raw if name not in known]
    if unknown:
        raise ConfigError(f"{config}: {unknown[0]}: unknown key; known are {', '.join(sorted(known))}")
