"""Models that a form can offer."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from service.database import Scope
from service.tables import Alias, Model

CHAMPION = "champion"  # the alias that scripts name
OFFERED = 200  # champions, others


@dataclass(frozen=True)
class Choice:
    """A model as a form offers it: what is sent, and what is read."""

    id: str
    job_id: str
    name: str


def model_choices(scope: Scope) -> list[Choice]:
    """Champions first, however old; then the newest."""
    live = scope.select(Model).where(Model.deleted_at.is_(None)).order_by(Model.seq.desc())
    named = sa.select(Alias.model_id).where(Alias.tenant_id == scope.tenant_id, Alias.name == CHAMPION)
    best = list(scope.session.scalars(live.where(Model.id.in_(named)).limit(OFFERED)))
    models = best + list(scope.session.scalars(live.where(Model.id.not_in(named)).limit(OFFERED)))
    aliases = aliases_by_model(scope, [model.id for model in models])
    return [_choice(model, aliases.get(model.id, [])) for model in models]


def aliases_by_model(scope: Scope, ids: list[str]) -> dict[str, list[str]]:
    """Model id -> its aliases."""
    named = sa.select(Alias.model_id, Alias.name).where(Alias.tenant_id == scope.tenant_id, Alias.model_id.in_(ids))
    found: dict[str, list[str]] = {}
    for id, name in scope.session.execute(named.order_by(Alias.name)):
        found.setdefault(id, []).append(name)
    return found


def _choice(model: Model, aliases: list[str]) -> Choice:
    names = "".join(f" @{name}" for name in aliases)
    return Choice(model.id, model.job_id, f"{model.family}{names} ({model.job_id[-8:]})")
