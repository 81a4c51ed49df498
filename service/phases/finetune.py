"""Fine-tuning in a job: upload -> table with text and label -> `pipelines.run.finetune`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config import RunConfig, TrainingConfig, auto_learning_rate, parse_config
from pipelines.durable import MANIFEST, write_json
from service.phases.files import plan_of, planning, work_of
from service.refused import UploadRefused

if TYPE_CHECKING:  # reading tables takes libraries that the worker, which imports this module, never needs
    from service.training_data import Understood

TRAIN, VALIDATION, CONFIG = "train.jsonl", "validation.jsonl", "config.json"


def plan(folder: Path, request: Mapping[str, Any], _: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Read the uploads, say what was understood, and write the config of the run."""
    at = plan_of(folder)
    with planning(folder) as staging:
        try:
            training = _prepared(request["training"], request, staging / TRAIN)
        except UploadRefused as error:
            if error.columns:  # so that a page can offer them
                found = {"columns": list(error.columns)}
                yield {"event": "planned", "message": f"The file has {len(error.columns)} columns.", "data": found}
            raise
        yield _planned("training", training)
        data = training.section(at / TRAIN)
        if request["validation"] is not None:
            yield _planned("validation", _prepared(request["validation"], request, staging / VALIDATION, False))
            data["validation"] = str(at / VALIDATION)
        write_json(staging / CONFIG, _config(request, data))


def execute(folder: Path, request: Mapping[str, Any], stop: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Train, from the newest checkpoint of an earlier attempt where there is one."""
    from pipelines.run import finetune
    from service import launch
    from service.settings import default_store

    out = work_of(folder) / "run"
    if (out / MANIFEST).exists():  # an earlier attempt ended between its last file and its last word
        return
    config = parse_config(json.loads((plan_of(folder) / CONFIG).read_text(encoding="utf-8")))
    config = config.model_copy(update={"training": _scaled(config, request["rate_multiplier"])})
    count = launch.resolve_count(config.training.processes)
    if count == 1:
        for event in finetune(config, out, resume=True, stop=stop, store=default_store()):
            yield event.to_json()
        return
    path = folder / "config.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    launch.check_first(config, out)
    sys.stdout.flush()
    os.environ["ROOTSTOCK_PARENT"] = str(os.getpid())
    launch.start(count, ["finetune", str(path), "--out", str(out), "--resume", "--json"])  # prints its own events


def _prepared(upload: Mapping[str, str], request: Mapping[str, Any], target: Path, training: bool = True) -> Understood:
    from service.training_data import prepare

    return prepare(Path(upload["path"]), upload["filename"], request["data"], target, training)


def _planned(name: str, understood: Understood) -> dict[str, Any]:
    return {"event": "planned", "message": f"{name} file: {understood.sentence}", "data": understood.to_json()}


def _config(request: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The request's own sections, with files and weights that only the server may name."""
    config: dict[str, Any] = request["config"] | {"data": request["config"]["data"] | data}
    if request["start_from"] is not None:
        return config | {"start_from": request["start_from"]}
    return config | {"backbone": config.get("backbone", {}) | {"name": request["base"]}}


def _scaled(config: RunConfig, multiplier: float | None) -> TrainingConfig:
    """The default learning rate of this depth, times what the request says."""
    if multiplier is None:
        return config.training
    from transformers import AutoConfig

    from pipelines.weights import resolve

    path = resolve(config.backbone).path if config.start_from is None else config.start_from / "model"
    depth = config.backbone.freeze
    layers = AutoConfig.from_pretrained(path).num_hidden_layers
    share = {"none": 0.0, "all": 1.0}[depth] if isinstance(depth, str) else min(1.0, depth / layers)
    rate = multiplier * auto_learning_rate(share, config.adapter.type != "none")
    return config.training.model_copy(update={"learning_rate": rate})
