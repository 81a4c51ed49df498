"""What this machine has, and which precision it is fast at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import transformers
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import ProjectConfiguration, broadcast_object_list

from pipelines.errors import ConfigError, TrainingError

Precision = Literal["fp32", "bf16", "fp16"]
T = TypeVar("T")
_NUMERIC_SETTINGS = ("DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "MKL_CBWR")


def device() -> torch.device:
    """The device of this process: its GPU, else Apple's, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def process_count() -> int:
    """How many processes `processes: auto` means: one for every GPU, else one."""
    return max(1, torch.cuda.device_count()) if torch.cuda.is_available() else 1


def best_precision() -> Precision:
    """bf16 where it is fast, fp16 on GPUs without it, else fp32.

    A CPU with AMX is about five times faster in bf16; one without bf16 instructions is slower in it (measured: 0.15
    TFLOP/s in fp32, 0.05 in bf16). The instructions are asked for, not timed: a run must resume in its own precision.
    """
    kind = device().type
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    instructions = torch.cpu.get_capabilities() if kind == "cpu" else {}
    return "bf16" if instructions.get("amx_bf16") or instructions.get("avx512_bf16") else "fp32"


def resolve_precision(wanted: Literal["auto", "fp32", "bf16", "fp16"]) -> Precision:
    """Resolve `auto`. Raises ConfigError for fp16 without a GPU, where it has neither speed nor a gradient scaler."""
    if wanted == "fp16" and device().type != "cuda":
        raise ConfigError("precision: fp16 needs a GPU; expected auto, fp32 or bf16 on this machine")
    return best_precision() if wanted == "auto" else wanted


def start_accelerator(precision: Precision, trackers: Sequence[str], logging_dir: Path) -> Accelerator:
    """Accelerate's view of this process: its device, its peers (torchrun's environment), its precision.

    Args:
        precision: of the forward and backward pass; weights and optimizer stay fp32.
        trackers: such as tensorboard, which writes below `logging_dir`.

    Raises:
        TrainingError: the processes that were started together are not connected.
    """
    AcceleratorState._reset_state()  # a second run in this process may want another precision
    accelerator = Accelerator(
        cpu=device().type == "cpu",  # without it, processes on a CPU do not find each other
        mixed_precision="no" if precision == "fp32" else precision,
        log_with=list(trackers) or None,
        project_config=ProjectConfiguration(project_dir=str(logging_dir), logging_dir=str(logging_dir)),
    )
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != started:
        raise TrainingError(f"{started} processes were started, but Accelerate connected {accelerator.num_processes}")
    return accelerator


def agreed(value: T) -> T:
    """The main process's value, in all processes: a rounding error apart, they might decide differently."""
    return broadcast_object_list([value])[0]  # type: ignore[no-any-return]


def autocast(precision: Precision) -> torch.autocast:
    """Context for inference in a precision; off for fp32."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device().type, dtype=dtype, enabled=precision != "fp32")


def numeric_backend() -> dict[str, Any]:
    """What decides the bits of a sum besides its terms: device, instructions, libraries, threads."""
    kind = device()
    capabilities = torch.cpu.get_capabilities()
    name = torch.cuda.get_device_name(kind) if kind.type == "cuda" else str(capabilities.get("cpu_name", ""))
    instructions = {k: v for k, v in capabilities.items() if v is True}
    return {
        "device": f"{kind.type} {name}".strip(),
        "instructions": sorted(instructions) if kind.type == "cpu" else [],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "build": torch.__config__.show(),
        "matmul": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads() if kind.type == "cpu" else 0,
        "settings": {k: os.environ[k] for k in _NUMERIC_SETTINGS if k in os.environ},
    }
