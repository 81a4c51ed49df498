"""What this machine has, for `rootstock doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from pipelines.artifacts import environment
from pipelines.config import BackboneConfig
from pipelines.device import best_precision, device, process_count
from pipelines.errors import BackboneError
from pipelines.weights import resolve
from service.settings import default_store


def examine() -> dict[str, Any]:
    """Findings by name; everything that can be asked without training."""
    return {
        "rootstock": importlib.metadata.version("rootstock"),
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "device": str(device()),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "processes for auto": process_count(),
        "fast precision": best_precision(),
        "OpenVINO": _version("openvino") or "not installed (pip install 'rootstock[openvino]')",
        "embedded backbone": _backbone(),
        "store of hidden states": _store(),
        "hub": "allowed" if os.environ.get("ROOTSTOCK_HUB") == "allow" else "not allowed (ROOTSTOCK_HUB=allow)",
    } | environment()


def print_table(findings: dict[str, Any]) -> None:
    """Findings for people, to standard output."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, value in findings.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {version}" for key, version in value.items())
        if isinstance(value, list):
            value = ", ".join(value) or "none"
        table.add_row(name, str(value))
    Console(highlight=False, markup=False, emoji=False).print(table)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _store() -> str:
    store = default_store()
    used, most = store.size() / 2**30, store.most_bytes / 2**30
    return f"{store.root}: {used:.1f} of at most {most:.1f} GiB (ROOTSTOCK_STORE, ROOTSTOCK_STORE_GIB)"


def _backbone() -> str:
    try:
        weights = resolve(BackboneConfig())
    except BackboneError as error:
        return f"unusable: {error}"
    return f"verified, revision {weights.revision}"
