"""Logits of one model by OpenVINO, which is faster than PyTorch on some CPUs and needs seconds to start.

One request for the whole life of an engine, all threads in it, inputs copied. Asynchronous requests were about 1.15
times faster, but with batches of many shapes they crashed within minutes; requests that were made anew over inputs in
shared memory crashed once (OpenVINO 2026.4.1, cause not found).

OpenVINO's own usage reports (the package openvino-telemetry, which sends them without asking) are never loaded.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib
import importlib.util
import io
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from pipelines.backbones import Backbone
from pipelines.backbones.base import Encoding
from pipelines.batches import padded_length, token_batches
from pipelines.errors import BackboneError, ConfigError
from pipelines.first_token import first_token_only
from pipelines.records import FloatArray

BATCH_TOKENS = 2048  # padded, of a batch sorted by length
CALIBRATION = 256  # encodings that decide the ranges of int8
_TELEMETRY = "openvino_telemetry"
_EXAMPLE = ("a text", "a text that is longer", "and one more that is longer than both of them")
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}  # int8: of what is not quantised


class OpenVinoEngine:
    """Logits by OpenVINO.

    Args:
        backbone: its model, in fp32, is converted in memory; it is put into eval mode here.
        precision: int8 is post-training quantisation by NNCF.
        sample: encodings that int8 is calibrated on; the user's own are best.

    Attributes:
        settings: equal settings on one machine give equal bits.

    Raises:
        ConfigError: a package is missing, the CPU has no bf16 instructions, or int8 has no sample.
        BackboneError: OpenVINO cannot convert the model.
    """

    def __init__(
        self, backbone: Backbone, precision: Literal["fp32", "bf16", "int8"], sample: Sequence[Encoding] = ()
    ) -> None:
        ov = load_openvino()
        core = ov.Core()
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ConfigError(
                "--precision bf16: this CPU has no bf16 instructions; expected fp32 or int8 with OpenVINO"
            )
        if precision == "int8" and not sample:
            raise ConfigError("--precision int8: needs texts to be calibrated on, and there are none")
        self.backbone = backbone
        self.settings: dict[str, Any] = {
            "version": ov.get_version(),
            "precision": precision,
            "threads": torch.get_num_threads(),
            "batch_tokens": BATCH_TOKENS,
        }
        with first_token_only(backbone):
            model = converted(backbone)
        if precision == "int8":
            calibration = list(sample[:CALIBRATION])
            model = _quantised(model, backbone, calibration)
            self.settings["calibrated_on"] = _digest(backbone, calibration)
        hints = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # a core that something else is busy on would hold up all others
        }
        self._request = core.compile_model(model, "CPU", hints).create_infer_request()

    def logits(self, encodings: Sequence[Encoding]) -> FloatArray:
        """Logits, (N, C), in input order."""
        found = np.empty((len(encodings), len(self.backbone.labels)))
        lengths = [self.backbone.length(encoding) for encoding in encodings]
        for batch in token_batches(lengths, BATCH_TOKENS):
            tokens = padded_length(max(lengths[i] for i in batch), self.backbone.max_length)
            inputs = self.backbone.collate([encodings[i] for i in batch], tokens)
            outputs = self._request.infer({name: tensor.numpy() for name, tensor in inputs.items()})
            found[batch] = outputs["logits"]
        return found


def available() -> bool:
    """Whether OpenVINO is installed. It is not imported here."""
    return importlib.util.find_spec("openvino") is not None


def load_openvino() -> Any:
    """The module openvino, without its usage reports. Raises ConfigError if it is not installed."""
    return _load("openvino", "OpenVINO is not installed: pip install 'rootstock[openvino]'")


def program(backbone: Backbone) -> torch.export.ExportedProgram:
    """The model as a graph: input_ids and attention_mask, (B, T) with both free, to logits, (B, C).

    Raises:
        BackboneError: PyTorch cannot write it as one graph.
    """
    module = _Logits(backbone).eval()
    inputs = backbone.collate(backbone.encode(_EXAMPLE))
    free = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    with torch.no_grad(), quiet_export():
        try:
            return torch.export.export(module, (), inputs, dynamic_shapes=dict.fromkeys(inputs, free), strict=False)
        except Exception as error:  # whatever the library calls it
            raise BackboneError(f"{backbone.name}: cannot be exported: {first_line(error)}") from None


def converted(backbone: Backbone) -> Any:
    """The model as OpenVINO's, with its own copy of the weights, in fp32. Raises BackboneError."""
    ov = load_openvino()
    graph = program(backbone)
    for values in (graph.state_dict, graph.constants):  # OpenVINO would use the model's own memory
        values.update(copy.deepcopy(dict(values)))
    try:
        with quiet_export():
            model = ov.convert_model(graph)
    except Exception as error:  # whatever the library calls it
        raise BackboneError(f"{backbone.name}: OpenVINO cannot convert it: {first_line(error)}") from None
    model.outputs[0].get_tensor().set_names({"logits"})
    return model


@contextlib.contextmanager
def quiet_export() -> Iterator[None]:
    """Without what PyTorch's own code warns PyTorch's own code of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated", category=FutureWarning)
        yield


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class _Logits(nn.Module):  # type: ignore[misc]
    """A backbone's model as inputs -> logits, without the cache of earlier tokens that decoders keep."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.model = backbone.model
        self.options = {"use_cache": False} if backbone.pooling == "last" else {}

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, **self.options).logits
        return logits


def _quantised(model: Any, backbone: Backbone, sample: Sequence[Encoding]) -> Any:
    """Weights and activations in int8, ranges taken from the sample."""
    batches = [
        {name: tensor.numpy() for name, tensor in backbone.collate([encoding]).items()} for encoding in sample
    ]  # one by one: padding would count as text
    with contextlib.redirect_stdout(io.StringIO()):  # it logs and draws bars there
        nncf = _load("nncf", "--precision int8 needs nncf: pip install 'rootstock[openvino]'")
        return nncf.quantize(
            model, nncf.Dataset(batches), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(batches)
        )


def _digest(backbone: Backbone, sample: Sequence[Encoding]) -> str:
    contents = (hashlib.sha256(backbone.content(encoding)).digest() for encoding in sample)
    return hashlib.sha256(b"".join(contents)).hexdigest()


def _load(name: str, missing: str) -> Any:
    sys.modules.setdefault(_TELEMETRY, None)  # type: ignore[arg-type]  # its import fails, and openvino and nncf go on
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(missing) from None
