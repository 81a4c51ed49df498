"""Finished models of a tenant, and the aliases that move between those of a family (`FAMILY@champion`).

Aliases follow MLflow's (https://mlflow.org/docs/latest/model-registry): 255 characters at most, `latest` and `v1`,
`v2`... reserved; but matched whole, where MLflow's own pattern lets a line end through.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from service.database import Scope
from service.errors import ApiError, invalid
from service.settings import ServiceSettings
from service.tables import Alias, Job, Model

NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")
RESERVED = re.compile(r"latest|v[0-9]+")


def model_id(base: str, tenant: str, suffix: str | None, job_id: str) -> str:
    """Such as `ft:sentence-transformers/all-MiniLM-L6-v2:default:brand:3kTMd8Qa`."""
    return f"ft:{base}:{tenant}:{suffix or ''}:{job_id.removeprefix('ftjob-')[:12]}"


def family_of(base: str, suffix: str | None) -> str:
    """What the aliases of a model belong to: its suffix, or the name of its base."""
    return suffix or base.rsplit("/", 1)[-1][:64]


def add_model(scope: Scope, job: Job, id: str, base: str, suffix: str | None, labels: list[Any]) -> Model:
    """The model of a job, whose run directory is in place."""
    model = Model(id=id, job_id=job.id, base=base, family=family_of(base, suffix), folder=job.id, labels=labels)
    return scope.add(model)


def find_model(scope: Scope, name: str) -> Model | None:
    """By id or by FAMILY@ALIAS; None if there is none, or it was deleted."""
    family, at, alias = name.rpartition("@")
    if at and not name.startswith("ft:"):
        found = scope.session.get(Alias, (scope.tenant_id, family, alias))
        if found is None:
            return None
        name = found.model_id
    model = scope.get(Model, name)
    return model if model is not None and model.deleted_at is None else None


def the_model(scope: Scope, name: str, param: str = "model") -> Model:
    """Like `find_model`. Raises ApiError 404, as OpenAI does for a model that does not exist."""
    model = find_model(scope, name)
    if model is None:
        raise ApiError(
            404,
            f"The model {name[:200]!r} does not exist; GET /v1/models lists those that do",
            "model_not_found",
            param,
        )
    return model


def models_of(scope: Scope) -> list[Model]:
    """Newest first."""
    live = scope.select(Model).where(Model.deleted_at.is_(None)).order_by(Model.seq.desc())
    return list(scope.session.scalars(live))


def delete_model(scope: Scope, model: Model) -> None:
    """From now on it does not exist. Raises ApiError 400 while an alias names it."""
    alias = scope.session.scalars(_aliases(scope).where(Alias.model_id == model.id)).first()
    if alias is not None:
        raise invalid(
            f"{model.id} is {alias.family}@{alias.name}; move or delete that alias first", code="model_in_use"
        )
    model.deleted_at = time.time()


def set_alias(scope: Scope, model: Model, name: str) -> Alias:
    """Point FAMILY@NAME at this model, whatever it pointed at before. Raises ApiError 400 for a name that is none."""
    if not NAME.fullmatch(name) or RESERVED.fullmatch(name.lower()):
        raise invalid(
            f"expected letters, digits and . _ - (at most 255), not latest or v1, v2...; found {name[:100]!r}", "name"
        )
    alias = scope.session.get(Alias, (scope.tenant_id, model.family, name))
    if alias is None:
        alias = Alias(
            tenant_id=scope.tenant_id, family=model.family, name=name, model_id=model.id, created_at=time.time()
        )
        scope.session.add(alias)
    alias.model_id = model.id
    return alias


def delete_alias(scope: Scope, model: Model, name: str) -> bool:
    """Returns whether there was one on this model."""
    alias = scope.session.get(Alias, (scope.tenant_id, model.family, name))
    if alias is None or alias.model_id != model.id:
        return False
    scope.session.delete(alias)
    return True


def aliases_of(scope: Scope, model: Model) -> list[str]:
    return sorted(scope.session.scalars(_aliases(scope, Alias.name).where(Alias.model_id == model.id)))


def all_aliases(scope: Scope) -> dict[str, str]:
    """FAMILY@NAME -> id of its model."""
    return {f"{each.family}@{each.name}": each.model_id for each in scope.session.scalars(_aliases(scope))}


def folder_of(settings: ServiceSettings, model: Model) -> Path:
    """Its run directory."""
    return models_dir(settings, model.tenant_id) / model.folder


def models_dir(settings: ServiceSettings, tenant_id: str) -> Path:
    return settings.tenant_dir(tenant_id) / "models"


def _aliases(scope: Scope, what: Any = Alias) -> sa.Select[Any]:
    return sa.select(what).where(Alias.tenant_id == scope.tenant_id)
