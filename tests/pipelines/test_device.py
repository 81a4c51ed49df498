"""Devices and precisions. What a machine without GPU cannot show is told to torch by monkeypatching torch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipelines import device
from pipelines.errors import ConfigError

ON_CPU = pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="a CPU's behaviour")


@pytest.fixture
def pretend_gpus(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Torch says that there are 4 GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    return monkeypatch


@ON_CPU
def test_without_a_gpu_there_is_one_process_on_the_cpu() -> None:
    assert device.device() == torch.device("cpu")
    assert device.process_count() == 1


def test_every_process_has_its_own_gpu(pretend_gpus: pytest.MonkeyPatch) -> None:
    assert device.process_count() == 4
    assert device.device() == torch.device("cuda", 0)
    pretend_gpus.setenv("LOCAL_RANK", "3")
    assert device.device() == torch.device("cuda", 3)


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_uses_the_half_precision_it_has(pretend_gpus: pytest.MonkeyPatch, has_bf16: bool, expected: str) -> None:
    pretend_gpus.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16 or including_emulation)
    assert device.best_precision() == expected
    assert device.resolve_precision("auto") == expected
    assert device.resolve_precision("fp16") == "fp16"


@ON_CPU
@pytest.mark.parametrize(
    ("instructions", "expected"),
    [({"amx_bf16": True}, "bf16"), ({"avx512_bf16": True}, "bf16"), ({"avx512_f": True, "amx_bf16": False}, "fp32")],
)
def test_a_cpu_uses_bf16_where_it_has_the_instructions(
    instructions: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert device.resolve_precision("auto") == expected


@ON_CPU
def test_fp16_without_a_gpu_is_refused_with_what_to_use() -> None:
    with pytest.raises(ConfigError, match="fp16 needs a GPU; expected auto, fp32 or bf16"):
        device.resolve_precision("fp16")
    assert device.resolve_precision("bf16") == "bf16"
    assert device.resolve_precision("fp32") == "fp32"


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_computes_in_the_precision(precision: device.Precision, dtype: torch.dtype) -> None:
    layer = torch.nn.Linear(2, 2).to(device.device())
    with device.autocast(precision):
        assert layer(torch.ones(1, 2, device=device.device())).dtype == dtype
    assert layer.weight.dtype == torch.float32


def test_a_second_run_in_one_process_may_have_another_precision(tmp_path: Path) -> None:
    for precision, expected in (("bf16", "bf16"), ("fp32", "no"), ("bf16", "bf16")):
        accelerator = device.start_accelerator(precision, [], tmp_path)  # type: ignore[arg-type]
        assert accelerator.mixed_precision == expected
        assert accelerator.device.type == device.device().type
        assert (accelerator.num_processes, accelerator.is_main_process) == (1, True)


@pytest.mark.parametrize(("trackers", "written"), [(["tensorboard"], True), ([], False)])
def test_trackers_write_below_the_given_folder(tmp_path: Path, trackers: list[str], written: bool) -> None:
    accelerator = device.start_accelerator("fp32", trackers, tmp_path)
    accelerator.init_trackers("tensorboard")
    accelerator.log({"step/loss": 1.0}, step=1)
    accelerator.end_training()
    assert any((tmp_path / "tensorboard").rglob("events.*")) == written
