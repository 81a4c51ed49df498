"""Models that a form can offer."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from service.database import Scope
from service.tables import Alias, Model

CHAMPION = "champion"  # the alias that scripts name
OFFERED = 200  # the newest


@dataclass(frozen=True)
class Choice:
    """A model as a form offers it: what is sent, and what is read."""

    id: str
    job_id: str
    name: str
    champion: bool


def model_choices(scope: Scope) -> list[Choice]:
    """Champions first, then the newest."""
    live = scope.select(Model).where(Model.deleted_at.is_(None)).order_by(Model.seq.desc()).limit(OFFERED)
    models = list(scope.session.scalars(live))
    aliases = aliases_by_model(scope, [model.id for model in models])
    found = [_choice(model, aliases.get(model.id, [])) for model in models]
    return sorted(found, key=lambda choice: not choice.champion)


def aliases_by_model(scope: Scope, ids: list[str]) -> dict[str, list[str]]:
    """Model id -> its aliases."""
    named = sa.select(Alias.model_id, Alias.name).where(Alias.tenant_id == scope.tenant_id, Alias.model_id.in_(ids))
    found: dict[str, list[str]] = {}
    for id, name in scope.session.execute(named.order_by(Alias.name)):
        found.setdefault(id, []).append(name)
    return found


def _choice(model: Model, aliases: list[str]) -> Choice:
    names = "".join(f" @{name}" for name in aliases)
    return Choice(model.id, model.job_id, f"{model.family}{names} ({model.job_id[-8:]})", CHAMPION in aliases)
