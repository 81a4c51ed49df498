"""A backbone whose hidden layers hold their matrices in 8 or 4 bits while LoRA is trained on them.

8 bits: Dettmers et al. 2022, arXiv 2208.07339; 4 bits (NF4): Dettmers et al. 2023, arXiv 2305.14314. By bitsandbytes,
which is fast on GPUs. What is saved in the end is LoRA merged into the original weights, so that a trunk stays what
other models share.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from pipelines.device import device
from pipelines.errors import ConfigError

Bits = Literal["8bit", "4bit"]


def quantization(bits: Bits, kept: Sequence[str]) -> dict[str, Any]:
    """Options for `from_pretrained`.

    Args:
        kept: module paths that stay as they are, such as the head.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(f"backbone.quantize: {bits} needs bitsandbytes; pip install 'rootstock[quantized]'")
    settings = BitsAndBytesConfig(
        load_in_8bit=bits == "8bit",
        load_in_4bit=bits == "4bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=list(kept),
    )
    return {"quantization_config": settings, "device_map": {"": device()}}


def keep_gradients(model: nn.Module) -> None:
    """Stop layers of 4 bits from being packed for inference: on CPUs with AVX-512 BF16 that happens at the first
    validation, cannot be undone, and lets no gradient through (bitsandbytes 0.50.2, `Linear4bit.forward`)."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
