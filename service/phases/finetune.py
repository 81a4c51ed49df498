"""Fine-tuning in a job: upload -> table with text and label -> `pipelines.run.finetune`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.durable import MANIFEST, write_json
from service.phases.files import plan_of, planning, work_of

TRAIN, VALIDATION, CONFIG = "train.jsonl", "validation.jsonl", "config.json"


def plan(folder: Path, request: Mapping[str, Any], _: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Read the uploads, say what was understood, and write the config of the run."""
    from service.training_data import prepare

    with planning(folder) as staging:
        for name, upload in (("training", request["training"]), ("validation", request["validation"])):
            if upload is None:
                continue
            target = staging / (TRAIN if name == "training" else VALIDATION)
            path, training = Path(upload["path"]), name == "training"
            understood = prepare(path, upload["filename"], request["data"], target, training)
            yield {"event": "planned", "message": f"{name} file: {understood.sentence}", "data": understood.to_json()}
        write_json(staging / CONFIG, _config(folder, request))


def execute(folder: Path, request: Mapping[str, Any], stop: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Train, from the newest checkpoint of an earlier attempt where there is one."""
    from pipelines.config import parse_config
    from pipelines.run import finetune
    from service import launch
    from service.settings import default_store

    config = parse_config(json.loads((plan_of(folder) / CONFIG).read_text(encoding="utf-8")))
    config = config.model_copy(update={"training": _scaled(config, request["rate_multiplier"])})
    out = work_of(folder) / "run"
    if (out / MANIFEST).exists():  # an earlier attempt ended between its last file and its last word
        return
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


def _config(folder: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """The request's own sections, with files in place of what only the server may say."""
    config: dict[str, Any] = json.loads(json.dumps(request["config"]))
    at = plan_of(folder)
    data = config.setdefault("data", {})
    mapped = request["data"]
    data |= {"train": str(at / TRAIN), "text": "text", "label": "label"}
    data |= {name: name for name in ("id", "group") if mapped.get(name)}
    data |= {"slices": list(mapped.get("slices") or ())}
    if request["validation"] is not None:
        data["validation"] = str(at / VALIDATION)
    if request["start_from"] is not None:
        config["start_from"] = request["start_from"]
    else:
        config.setdefault("backbone", {})["name"] = request["backbone"]
    return config


def _scaled(config: Any, multiplier: float | None) -> Any:
    """The default learning rate of this depth, times what the request says."""
    if multiplier is None:
        return config.training
    from pipelines.config import auto_learning_rate
    from pipelines.weights import resolve

    layers = _layers(resolve(config.backbone).path if config.start_from is None else config.start_from / "model")
    depth = config.backbone.freeze
    share = {"none": 0.0, "all": 1.0}.get(depth, 0.0) if isinstance(depth, str) else min(1.0, depth / layers)
    rate = multiplier * auto_learning_rate(share, config.adapter.type == "lora")
    return config.training.model_copy(update={"learning_rate": rate})


def _layers(model: Path) -> int:
    return int(json.loads((model / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"])
