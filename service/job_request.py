"""What a fine-tuning call asks for -> the request that its job keeps, checked before anything is queued."""

from __future__ import annotations

from typing import Any

from pipelines.base_models import hidden_layers
from pipelines.config import parse_config
from pipelines.errors import ConfigError
from service.database import Scope
from service.errors import invalid
from service.files import get_file
from service.models import find_model
from service.schemas import Hyperparameters, JobRequest
from service.settings import ServiceSettings

TASK = "text-classification"
MOST = {"processes": 16, "epochs": 1000, "batch_size": 4096, "accumulation": 1024}  # of training
MOST_RESAMPLES = 10_000
OWN_BACKBONE_KEYS = ("freeze", "cache")  # what a request may set; which weights are loaded is `model`


def job_request(scope: Scope, settings: ServiceSettings, body: JobRequest) -> dict[str, Any]:
    """Raises ApiError: a model, file or setting that cannot be used."""
    for param in ("training_file", "validation_file"):
        require_file(scope, getattr(body, param), param)
    base, start_from = _start(scope, settings, body)
    _check_depth(settings, base, body)
    asked = _hyperparameters(body)
    config = _config(body, asked)
    _check(config, body)
    rate = asked.learning_rate_multiplier
    if rate != "auto" and body.backbone.get("freeze") == "auto":
        raise invalid(
            "backbone.freeze: auto chooses the learning rate with the depth; leave the multiplier out, or give a depth",
            "learning_rate_multiplier",
        )
    return {
        "model": body.model,
        "base": base,
        "start_from": start_from,
        "training_file": body.training_file,
        "validation_file": body.validation_file,
        "suffix": body.suffix,
        "seed": config["training"]["seed"],
        "hyperparameters": asked.model_dump(),
        "rate_multiplier": None if rate == "auto" else rate,
        "data": body.data.mapping,
        "config": config,
    }


def require_file(scope: Scope, id: str | None, param: str) -> None:
    """Raises ApiError 400 for a file that does not exist, as OpenAI does for a field of a body."""
    if id is not None and get_file(scope, id) is None:
        raise invalid(f"No such file: {id[:100]!r}; upload it with POST /v1/files", param, "file_not_found")


def _start(scope: Scope, settings: ServiceSettings, body: JobRequest) -> tuple[str, str | None]:
    """The base model, and the tenant's own model that is trained further, if it is one."""
    if body.model in settings.base_models:
        return body.model, None
    model = find_model(scope, body.model)
    if model is None:
        known = ", ".join(settings.base_models)
        what = f"The model {body.model[:100]!r} does not exist"
        raise invalid(f"{what}. Base models here: {known}; or name a model of your own", "model", "model_not_found")
    return model.base, model.id


def _hyperparameters(body: JobRequest) -> Hyperparameters:
    if body.method is not None:
        return body.method.supervised.hyperparameters
    return body.hyperparameters or Hyperparameters()


def _config(body: JobRequest, asked: Hyperparameters) -> dict[str, Any]:
    """The config of the run, less its files and its backbone's name."""
    training = dict(body.training)
    named = {"epochs": ("n_epochs", asked.n_epochs), "batch_size": ("batch_size", asked.batch_size)}
    for key, (param, value) in named.items():
        if value != "auto":
            if key in training:
                raise invalid(f"{param} and training.{key} say the same; give one of them", param)
            training[key] = value
    if asked.learning_rate_multiplier != "auto" and "learning_rate" in training:
        raise invalid(
            "learning_rate_multiplier and training.learning_rate exclude each other", "learning_rate_multiplier"
        )
    if body.seed is not None:
        training["seed"] = body.seed
    training.setdefault("seed", 0)
    _bound(training, body.evaluation)
    unknown = [key for key in body.backbone if key not in OWN_BACKBONE_KEYS]
    if unknown:
        raise invalid(
            f"backbone.{unknown[0]}: expected {' or '.join(OWN_BACKBONE_KEYS)}; `model` names the weights, which "
            "are trained whole, not quantized",
            "backbone",
        )
    sections = {"backbone": body.backbone, "adapter": body.adapter, "evaluation": body.evaluation}
    config: dict[str, Any] = {"task": body.task or TASK, "data": body.data.settings, "training": training}
    config |= {name: section for name, section in sections.items() if section}
    return config | ({"baselines": body.baselines} if body.baselines is not None else {})


def _bound(training: dict[str, Any], evaluation: dict[str, Any]) -> None:
    """What one job may cost others. Raises ApiError 400."""
    wanted = [(f"training.{key}", training.get(key), most) for key, most in MOST.items()]
    wanted.append(("evaluation.bootstrap", evaluation.get("bootstrap"), MOST_RESAMPLES))
    for key, value, most in wanted:
        if isinstance(value, int) and value > most:
            raise invalid(f"{key}: expected at most {most:,}, found {value:,}", key)


def _check_depth(settings: ServiceSettings, base: str, body: JobRequest) -> None:
    """Raises ApiError 400 for more frozen layers than there are, where that is known before the weights are read."""
    layers, depth = hidden_layers(settings.base_models.get(base, base)), body.backbone.get("freeze")
    if layers is not None and isinstance(depth, int) and depth > layers:
        raise invalid(
            f"backbone.freeze: expected at most {layers}, the hidden layers of {base}; found {depth}", "backbone"
        )


def _check(config: dict[str, Any], body: JobRequest) -> None:
    """Every problem of the sections at once, as the command line says it. Raises ApiError 400."""
    if body.validation_file is not None and body.data.validation is not None:
        raise invalid("validation_file and data.validation exclude each other", "data.validation")
    complete = config | {"data": config["data"] | {"train": "upload", "text": "text", "label": "label"}}
    try:
        parse_config(complete, "request")
    except ConfigError as error:
        lines = str(error).splitlines()
        raise invalid(" ".join(line.strip() for line in lines[1:]), lines[1].strip().partition(":")[0]) from None
