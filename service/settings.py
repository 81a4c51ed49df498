"""What the environment says. Read once, at the start of a command.

======================== =====================================================================================
ROOTSTOCK_STORE          directory of hidden states (default: in the user's cache)
ROOTSTOCK_STORE_GIB      its size limit
ROOTSTOCK_DATA_DIR       everything a service keeps (default: in the user's data directory)
ROOTSTOCK_DATABASE_URL   its database (default: SQLite in that directory), or postgresql://...
ROOTSTOCK_BASE_MODELS    backbones that jobs may name, with commas between; `alias=name` gives one another name
ROOTSTOCK_HOSTS          names under which a proxy serves the API, with commas between
ROOTSTOCK_LIMITS         such as `upload_mib=512,calls_per_minute=6000`: see `ServiceLimits`
======================== =====================================================================================
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_cache_path, user_data_path

from pipelines.base_models import base_models
from pipelines.config import EMBEDDED_BACKBONE
from pipelines.errors import ConfigError

if TYPE_CHECKING:  # its import takes torch, which the API process never loads
    from pipelines.activation_store import ActivationStore

STORE_GIB = 20.0
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class ServiceLimits:
    """Numbers that an operator may change."""

    upload_mib: int = 512
    calls_per_minute: int = 60_000  # of one key
    jobs_per_tenant: int = 2  # running at once in each queue, over all workers
    jobs_per_worker: int = 1  # of each queue: a data check may run beside a training
    job_memory_mib: int = 0  # of a job's process; 0: no limit of its own
    models_mib: int = 2048  # weights held for live classification
    batch_lines: int = 1_000_000
    tenant_mib: int = 0  # of files that one tenant keeps; 0, as in the next three: no limit
    tenant_jobs: int = 0  # that wait and run at once
    tenant_rows_per_day: int = 0  # classified, live or in batches
    tenant_cpu_s_per_day: int = 0  # of the processes of its jobs
    lease_s: int = 30  # a worker that is silent for so long is dead


@dataclass(frozen=True)
class ServiceSettings:
    """Where a service keeps its things and what it allows."""

    data_dir: Path
    database_url: str
    base_models: Mapping[str, str] = field(default_factory=lambda: {EMBEDDED_BACKBONE: EMBEDDED_BACKBONE})
    limits: ServiceLimits = ServiceLimits()
    hosts: tuple[str, ...] = LOOPBACK

    def tenant_dir(self, tenant_id: str) -> Path:
        """What belongs to one tenant; the id is the server's own."""
        return self.data_dir / "tenants" / tenant_id


def service_settings(data_dir: Path | None = None) -> ServiceSettings:
    """Settings from the environment; `data_dir` is the command line's. Raises ConfigError."""
    chosen = data_dir or Path(os.environ.get("ROOTSTOCK_DATA_DIR") or user_data_path("rootstock"))
    path = chosen.expanduser().absolute()
    return ServiceSettings(
        data_dir=path,
        database_url=os.environ.get("ROOTSTOCK_DATABASE_URL") or f"sqlite:///{path / 'rootstock.db'}",
        base_models=base_models(),
        limits=_limits(os.environ.get("ROOTSTOCK_LIMITS", "")),
        hosts=LOOPBACK + tuple(filter(None, os.environ.get("ROOTSTOCK_HOSTS", "").lower().replace(" ", "").split(","))),
    )


def default_store() -> ActivationStore:
    """The store of this user. Raises ConfigError for a limit that is no number above 0."""
    from pipelines.activation_store import ActivationStore

    root = os.environ.get("ROOTSTOCK_STORE")
    path = Path(root).expanduser() if root else user_cache_path("rootstock") / "activations"
    return ActivationStore(path, store_bytes())


def store_bytes() -> int:
    """What a store may hold. Raises ConfigError for a limit that is no number above 0."""
    limit = os.environ.get("ROOTSTOCK_STORE_GIB", "")
    try:
        size = float(limit or STORE_GIB)
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        raise ConfigError(f"ROOTSTOCK_STORE_GIB: expected a number of GiB above 0, found {limit!r}")
    return round(size * 2**30)


def _limits(text: str) -> ServiceLimits:
    known = [each.name for each in fields(ServiceLimits)]
    limits = ServiceLimits()
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        if name not in known or not value.isdecimal():
            raise ConfigError(f"ROOTSTOCK_LIMITS: expected NAME=NUMBER of {', '.join(known)}; found {part!r}")
        limits = replace(limits, **{name: int(value)})
    return limits
