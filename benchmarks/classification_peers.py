"""The peers of `benchmarks.classification`: other ways from text to label, each with a setting to choose.

Every one gets a list of strings and returns labels in the order of the strings; tokenization, sorting and putting back
into order are its own work. All but the first two `pipeline` settings run batches of similar length in tokens.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from pipelines.device import Precision, device

Labels = NDArray[np.str_]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Peer(ABC):
    """A way from text to label.

    Args:
        model: a Hugging Face directory with a fine-tuned model.
        batch: texts.

    Attributes:
        details: what it chose by itself, known once it is loaded.
    """

    def __init__(self, model: Path, batch: int = 32) -> None:
        self.model = model
        self.batch = batch
        self.details: dict[str, Any] = {}

    @abstractmethod
    def load(self) -> None:
        """Whatever is done once."""

    @abstractmethod
    def labels(self, texts: Sequence[str]) -> Labels:
        """(N,), in input order."""


class Pipeline(Peer):
    """`transformers.pipeline`.

    Args:
        precision: of weights and arithmetic.
        by_length: texts sorted by their tokens first; that costs a second tokenization, which is cheap.
    """

    def __init__(self, model: Path, batch: int, precision: Precision = "fp32", by_length: bool = False) -> None:
        super().__init__(model, batch)
        self.precision = precision
        self.by_length = by_length

    def load(self) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(self.model)
        self.classify = pipeline(
            "text-classification",
            model=str(self.model),
            tokenizer=self.tokenizer,
            dtype=DTYPES[self.precision],
            device=device(),
        )

    def labels(self, texts: Sequence[str]) -> Labels:
        order = list(range(len(texts)))
        if self.by_length:
            order = longest_first(self.tokenizer(list(texts), truncation=True)["input_ids"])
        found = self.classify([texts[i] for i in order], batch_size=self.batch, truncation=True)
        return in_input_order(order, np.array([answer["label"] for answer in found]))


class Sorted(Peer):
    """Batches of similar length, padded to their longest text, through some runtime."""

    def load(self) -> None:
        config = json.loads((self.model / "config.json").read_text(encoding="utf-8"))
        self.names = np.array([config["id2label"][str(number)] for number in range(len(config["id2label"]))])
        self.tokenizer = AutoTokenizer.from_pretrained(self.model)
        self.start()

    def labels(self, texts: Sequence[str]) -> Labels:
        ids = self.tokenizer(list(texts), truncation=True, return_attention_mask=False)["input_ids"]
        order = longest_first(ids)
        batches = [order[start : start + self.batch] for start in range(0, len(order), self.batch)]
        padded = (self._padded([ids[i] for i in batch]) for batch in batches)
        classes = np.concatenate([logits.argmax(axis=1) for logits in self.run(padded)])
        return in_input_order(order, self.names[classes])

    def _padded(self, ids: Sequence[Sequence[int]]) -> dict[str, NDArray[np.int64]]:
        input_ids = np.full((len(ids), max(map(len, ids))), self.tokenizer.pad_token_id, dtype=np.int64)
        mask = np.zeros_like(input_ids)
        for row, own in enumerate(ids):
            input_ids[row, : len(own)] = own
            mask[row, : len(own)] = 1
        return {"input_ids": input_ids, "attention_mask": mask, "token_type_ids": np.zeros_like(input_ids)}

    @abstractmethod
    def start(self) -> None:
        """Load and compile the model."""

    @abstractmethod
    def run(self, batches: Any) -> list[NDArray[Any]]:
        """Logits (B, C) of each batch, in the order of the batches."""


class PlainTorch(Sorted):
    """The model's own forward pass in fp32: what all labels are compared with."""

    def start(self) -> None:
        self.torch_model = AutoModelForSequenceClassification.from_pretrained(self.model, dtype=torch.float32).eval()

    def run(self, batches: Any) -> list[NDArray[Any]]:
        with torch.inference_mode():
            return [self.torch_model(**{k: torch.from_numpy(v) for k, v in b.items()}).logits.numpy() for b in batches]


class OnnxRuntime(Sorted):
    """ONNX Runtime with all graph optimisations and a thread for every core.

    Args:
        graph: an ONNX file of the model, fp32 or int8.
    """

    def __init__(self, model: Path, batch: int, graph: Path) -> None:
        super().__init__(model, batch)
        self.graph = graph

    def start(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(str(self.graph), options, providers=["CPUExecutionProvider"])
        self.inputs = [found.name for found in self.session.get_inputs()]

    def run(self, batches: Any) -> list[NDArray[Any]]:
        return [self.session.run(["logits"], {name: batch[name] for name in self.inputs})[0] for batch in batches]


class OpenVino(Sorted):
    """OpenVINO in the precision that it chooses on this machine.

    Args:
        graph: the model's OpenVINO file.
        hint: LATENCY (one request at a time, on all cores) or THROUGHPUT (as many as it finds best).
    """

    def __init__(self, model: Path, batch: int, graph: Path, hint: str) -> None:
        super().__init__(model, batch)
        self.graph = graph
        self.hint = hint

    def start(self) -> None:
        import openvino

        settings = {"PERFORMANCE_HINT": self.hint, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        self.compiled = openvino.Core().compile_model(str(self.graph), "CPU", settings)
        self.inputs = [found.get_any_name() for found in self.compiled.inputs]
        self.queue = openvino.AsyncInferQueue(self.compiled)
        chosen = ("INFERENCE_PRECISION_HINT", "NUM_STREAMS", "INFERENCE_NUM_THREADS")
        self.details = {name: str(self.compiled.get_property(name)) for name in chosen}

    def run(self, batches: Any) -> list[NDArray[Any]]:
        found: dict[int, NDArray[Any]] = {}
        self.queue.set_callback(lambda request, number: found.update({number: request.get_output_tensor().data.copy()}))
        for number, batch in enumerate(batches):
            self.queue.start_async({name: batch[name] for name in self.inputs}, number)
        self.queue.wait_all()
        return [found[number] for number in range(len(found))]


def quantise(source: Path, target: Path) -> None:
    """An ONNX model with int8 weights, one scale for every output channel; activations are quantised as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)


def longest_first(ids: Sequence[Sequence[int]]) -> list[int]:
    """Item numbers, the longest item first."""
    return sorted(range(len(ids)), key=lambda i: -len(ids[i]))


def in_input_order(order: Sequence[int], found: Labels) -> Labels:
    """Put labels of items taken in some order back into input order."""
    placed = np.empty_like(found)
    placed[np.asarray(order)] = found
    return placed
