"""A run's model for other runtimes: transformers, ONNX, OpenVINO.

::

    OUT/transformers/   config.json, model.safetensors, tokenizer files    AutoModelForSequenceClassification
    OUT/onnx/           config.json, model.onnx, tokenizer files           onnxruntime.InferenceSession
    OUT/openvino/       config.json, openvino_model.xml and .bin, tokenizer files    openvino.Core
    OUT/manifest.json   sha256 of every file, what was checked

The graphs take `input_ids` and `attention_mask`, any batch size and length, and give `logits`. Each export is loaded by
its own runtime, with its own tokenizer files, and must agree with PyTorch in fp32 before anything becomes visible.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipelines import durable
from pipelines.artifacts import environment, size_bytes
from pipelines.backbones import Backbone
from pipelines.backbones.text import quiet
from pipelines.bulk.openvino_engine import converted, first_line, load_openvino, program, quiet_export
from pipelines.errors import BackboneError, ConfigError, RunDirectoryError
from pipelines.predict import predict_logits
from pipelines.records import FloatArray
from pipelines.saved_run import SavedRun

FORMATS = ("transformers", "onnx", "openvino")
TOLERANCE = 1e-3  # of a logit
CHECKED = 32  # texts
_LOOKED_AT = 2000  # texts that those are chosen from
_BATCH = 8  # in which they are checked together, besides one by one
_ONE_FILE_BYTES = 1 << 30  # ONNX files end at 2 GiB: larger models keep their weights in a second file
_NEEDS = {
    "transformers": ("transformers",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino",),
}
_RUNTIMES = {"transformers": "transformers", "onnx": "onnxruntime", "openvino": "openvino"}

Inputs = dict[str, Any]  # name -> (B, T) integers, as a tokenizer returns them
Runtime = Callable[[Inputs], FloatArray]  # -> logits (B, C)


def export(model_dir: Path, formats: Sequence[str], out: Path) -> dict[str, Any]:
    """Write a run's model for other runtimes, each checked in its own.

    Args:
        model_dir: a complete run directory.
        formats: of FORMATS.
        out: a new directory; the work is done in `OUT.partial/`.

    Returns:
        What the manifest says besides digests: by format the largest difference of a logit, texts checked, size and
        version of the runtime.

    Raises:
        ConfigError: an unknown format, or a package that is not installed.
        RunDirectoryError: the run is incomplete or changed, or something stands at `out`.
        BackboneError: a format that cannot be written, or that does not agree with PyTorch.
    """
    _require(formats)
    if out.exists():
        raise RunDirectoryError(f"{out}: exists already; choose another --out or delete it")
    run = SavedRun(model_dir)
    with _staging(out) as partial:
        backbone = run.model()
        texts = _sample(backbone, run.seen()["text"])
        expected = predict_logits(backbone, backbone.encode(texts), "fp32")
        backbone.model.cpu()
        found = {}
        for format in dict.fromkeys(formats):
            _WRITERS[format](backbone, model_dir / "model", partial / format)
            found[format] = _checked(format, partial / format, texts, expected)
        details = {
            "kind": "export",
            "from": model_dir.name,
            "model_sha256": backbone.weights.sha256,
            "labels": list(run.labels),
            "formats": found,
        } | environment()
        durable.publish(partial, out, details)
    return details


def _require(formats: Sequence[str]) -> None:
    unknown = [format for format in formats if format not in FORMATS]
    if unknown or not formats:
        found = ", ".join(map(repr, unknown)) or "none"
        raise ConfigError(f"export: expected formats of {', '.join(FORMATS)}, found {found}")
    for format in formats:
        needed = _NEEDS[format]
        if not all(importlib.util.find_spec(name) for name in needed):
            names = f"{', '.join(needed[:-1])} and {needed[-1]}" if len(needed) > 1 else needed[0]
            raise ConfigError(f"export to {format} needs {names}: pip install 'rootstock[export]'")


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """An empty `OUT.partial/` for this process alone, gone again after a failure."""
    partial = out.with_name(out.name + ".partial")
    lock = FileLock(partial.with_name(f".{partial.name}.lock"))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise RunDirectoryError(f"{partial}: another process is working on this export") from None
    except OSError as error:
        raise RunDirectoryError(f"{out}: cannot be written: {error.strerror}") from None
    try:
        durable.discard(partial)
        partial.mkdir()
        yield partial
    finally:
        durable.discard(partial)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _sample(backbone: Backbone, texts: Sequence[str]) -> list[str]:
    """Up to CHECKED texts from the shortest to the longest."""
    distinct = list(dict.fromkeys(texts))[:_LOOKED_AT]
    lengths = [backbone.length(encoding) for encoding in backbone.encode(distinct)]
    order = np.argsort(lengths, kind="stable")
    chosen = np.unique(np.linspace(0, len(order) - 1, CHECKED).round().astype(int))
    return [distinct[i] for i in order[chosen]]


# ---- writing


def _write_transformers(_: Backbone, model: Path, target: Path) -> None:
    shutil.copytree(model, target)


def _write_onnx(backbone: Backbone, model: Path, target: Path) -> None:
    _copy_config(model, target)
    graph = program(backbone)
    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
    large = sum(p.numel() * p.element_size() for p in backbone.model.parameters()) > _ONE_FILE_BYTES
    try:
        with quiet_export(), _quiet_onnx():
            written = torch.onnx.export(
                graph, (), input_names=list(axes), output_names=["logits"], dynamic_shapes=axes, verbose=False
            )
            for node in written.model.graph.all_nodes():
                node.metadata_props.clear()  # stack traces with this machine's paths, larger than a small model
            written.save(str(target / "model.onnx"), external_data=large)
    except Exception as error:  # whatever the library calls it
        raise BackboneError(f"{backbone.name}: cannot be written as ONNX: {first_line(error)}") from None


def _write_openvino(backbone: Backbone, model: Path, target: Path) -> None:
    _copy_config(model, target)
    load_openvino().save_model(converted(backbone), str(target / "openvino_model.xml"), compress_to_fp16=False)


@contextmanager
def _quiet_onnx() -> Iterator[None]:
    """Without a line for every operator of a package that we do not use, and for every axis that is named twice."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="# The axis name: .* will not be used", category=UserWarning)
            yield
    finally:
        logger.setLevel(level)


def _copy_config(model: Path, target: Path) -> None:
    """All but the weights."""
    shutil.copytree(model, target, ignore=shutil.ignore_patterns("*.safetensors", "*.safetensors.index.json"))


_WRITERS: dict[str, Callable[[Backbone, Path, Path], None]] = {
    "transformers": _write_transformers,
    "onnx": _write_onnx,
    "openvino": _write_openvino,
}


# ---- checking


def _checked(format: str, path: Path, texts: Sequence[str], expected: FloatArray) -> dict[str, Any]:
    """Run the written files on texts one by one and in batches of mixed lengths, and compare with logits (N, C)."""
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    run, difference, wrong = _OPENERS[format](path), 0.0, 0
    step = -(-len(texts) // _BATCH)
    for numbers in [*([i] for i in range(len(texts))), *(list(range(i, len(texts), step)) for i in range(step))]:
        inputs = tokenizer([texts[i] for i in numbers], truncation=True, padding=True, return_tensors="np")
        logits = run(dict(inputs))
        difference = float(np.fmax(difference, np.nan_to_num(np.abs(logits - expected[numbers]), nan=np.inf).max()))
        wrong += int((logits.argmax(axis=1) != expected[numbers].argmax(axis=1)).sum())
    if difference > TOLERANCE or wrong:
        raise BackboneError(
            f"{format}: expected the logits of PyTorch within {TOLERANCE}, found a difference of {difference:.2g} and "
            f"{wrong} other labels on {len(texts)} texts; this model cannot be exported to {format}"
        )
    return {
        "max_difference": difference,
        "texts": len(texts),
        "size_bytes": size_bytes(path),
        "runtime": f"{_RUNTIMES[format]} {importlib.metadata.version(_RUNTIMES[format])}",
    }


def _open_transformers(path: Path) -> Runtime:
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    model.eval()

    def run(inputs: Inputs) -> FloatArray:
        with torch.inference_mode():
            logits: FloatArray = model(**{name: torch.from_numpy(v) for name, v in inputs.items()}).logits.numpy()
        return logits

    return run


def _open_onnx(path: Path) -> Runtime:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path / "model.onnx"), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(inputs: Inputs) -> FloatArray:
        logits: FloatArray = session.run(["logits"], {name: inputs[name] for name in names})[0]
        return logits

    return run


def _open_openvino(path: Path) -> Runtime:
    core = load_openvino().Core()
    compiled = core.compile_model(str(path / "openvino_model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [entry.any_name for entry in compiled.inputs]

    def run(inputs: Inputs) -> FloatArray:
        logits: FloatArray = compiled({name: inputs[name] for name in names})["logits"]
        return logits

    return run


_OPENERS: dict[str, Callable[[Path], Runtime]] = {
    "transformers": _open_transformers,
    "onnx": _open_onnx,
    "openvino": _open_openvino,
}
