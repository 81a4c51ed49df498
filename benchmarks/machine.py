"""The machine that a benchmark runs on: its name, memory of this process, matrix products; and a model's operations."""

from __future__ import annotations

import importlib.metadata
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks import results
from pipelines.device import Precision, device

SHAPES = ((4096, 384, 1536), (4096, 1536, 384), (2048, 2048, 2048))  # rows, inner size, columns of a product
TIMED_S = 1.0
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def machine() -> dict[str, Any]:
    """Name, threads and versions, for every row."""
    versions = results.versions() | {name: importlib.metadata.version(name) for name in ("onnxruntime", "openvino")}
    return {"machine": name(), "threads": torch.get_num_threads(), "versions": versions}


def name() -> str:
    """Of the GPU, or of the CPU and its best instructions."""
    if device().type == "cuda":
        return str(torch.cuda.get_device_name())
    capabilities = torch.cpu.get_capabilities()
    marks = [mark for mark in ("amx_bf16", "avx512_bf16", "avx512_f", "avx2") if capabilities.get(mark)]
    return f"{capabilities.get('cpu_name', 'cpu')}, {marks[0] if marks else 'plain'}"


def peak_rss() -> float:
    """Largest resident set of this process so far, in MiB.

    On Linux as /proc has it: `ru_maxrss` begins with the memory of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


@dataclass(frozen=True)
class Watched:
    """A command that has ended: exit code, what it printed, seconds, its resident set in MiB ten times a second."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    rss_mib: list[float]


def run_watched(command: Sequence[str]) -> Watched:
    """Run a command to its end, whatever that is."""
    started, seen = time.perf_counter(), []
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=out, stderr=errors) as process:
            watched = psutil.Process(process.pid)
            while process.poll() is None:
                seen.append(watched.memory_info().rss / 2**20)
                time.sleep(0.1)
        seconds = time.perf_counter() - started
        out.seek(0)
        errors.seek(0)
        return Watched(process.returncode, out.read(), errors.read(), seconds, seen)


def matmul_flops(precision: Precision) -> float:
    """Floating-point operations a second of the best of a few large matrix products."""
    return max(_flops_of(shape, DTYPES[precision]) for shape in SHAPES)


def _flops_of(shape: tuple[int, int, int], dtype: torch.dtype) -> float:
    rows, inner, columns = shape
    a, b = torch.randn(rows, inner), torch.randn(inner, columns)
    a, b = a.to(device(), dtype), b.to(device(), dtype)
    best, until = float("inf"), time.perf_counter() + TIMED_S
    while time.perf_counter() < until:
        started = time.perf_counter()
        torch.mm(a, b)
        if device().type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * rows * inner * columns / best


def model_flops(config: Any, tokens: Sequence[int]) -> dict[str, float]:
    """Floating-point operations of a BERT's matrix products on these texts, padding left out.

    Args:
        config: of the model.
        tokens: of each text.

    Returns:
        flops: all layers for all tokens, which is what a plain forward pass does.
        needed_flops: the last layer for the one token that the head reads.
    """
    H, inner, layers, classes = (
        config.hidden_size,
        config.intermediate_size,
        config.num_hidden_layers,
        config.num_labels,
    )
    head = 2 * H * H + 2 * H * classes
    full = needed = 0
    for T in tokens:
        layer = T * (8 * H * H + 4 * H * inner) + 4 * T * T * H
        last = T * 4 * H * H + 4 * H * H + 4 * H * inner + 4 * T * H
        full += layers * layer + head
        needed += (layers - 1) * layer + last + head
    return {"flops": full, "needed_flops": needed}
