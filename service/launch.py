"""Start one run on several processes, as torchrun would, without the user launching anything."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Literal

from pipelines.config import RunConfig
from pipelines.errors import ConfigError, RootstockError


def is_worker() -> bool:
    """Whether torchrun, or `start`, has started this process."""
    return "WORLD_SIZE" in os.environ


def resolve_count(processes: int | Literal["auto"]) -> int:
    """`auto` is one process for every GPU, or one. Raises ConfigError for more processes than GPUs."""
    from pipelines.device import device, process_count

    if processes == "auto":
        return process_count()
    if device().type == "cuda" and processes > process_count():
        raise ConfigError(f"--processes: expected at most one for every GPU ({process_count()}), found {processes}")
    return processes


def check_first(config: RunConfig, out: Path) -> None:
    """Raise in this process what every worker would raise: one message instead of N."""
    from pipelines.artifacts import refuse_existing
    from pipelines.distillation import teacher_of
    from pipelines.run import read_splits
    from pipelines.saved_run import starting_point

    refuse_existing(out)
    config, run = starting_point(config)
    teacher_of(config, read_splits(config, run))


def start(count: int, arguments: list[str]) -> None:
    """Run `rootstock ARGUMENTS` in `count` connected processes on this machine and wait.

    Raises:
        RootstockError: the workers failed (the first of them has said why) or were stopped.
    """
    threads = max(1, (os.cpu_count() or 1) // count)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    logging.disable(logging.ERROR)  # the launcher's own log: a worker has said what went wrong
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=0.2,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "service.cli", *arguments)
    except ChildFailedError as failed:
        _, first = failed.get_first_failure()
        raise _WorkerFailed(first.local_rank, first.exitcode) from None
    except SignalException:
        raise _WorkerFailed(0, 1) from None  # it has said how to go on


class _WorkerFailed(RootstockError):
    """The first worker prints its own failure; those of the others are only named."""

    def __init__(self, rank: int, code: int) -> None:
        super().__init__("" if rank == 0 else f"process {rank} failed (exit code {code}); --processes 1 says why")
        self.exit_code = code if code in (1, 2) else 1
