"""Models: list, read, delete, and the aliases that move between those of a family. Ids hold `:` and `/`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from service.auth import Calling
from service.context import Context, context_of
from service.database import Scope
from service.errors import missing
from service.models import aliases_of, delete_alias, delete_model, find_model, models_of, set_alias, the_model
from service.objects import base_model_object, model_object
from service.rights import GuardedRoute
from service.short_reads import short_read

router = APIRouter(route_class=GuardedRoute, prefix="/v1/models", tags=["models"])
Here = Annotated[Context, Depends(context_of)]


@router.get("")
def list_models(context: Here, caller: Calling) -> dict[str, Any]:
    """Base models that jobs may name, then the tenant's own, newest first."""
    with context.database.reading() as session:
        own = models_of(Scope(session, caller.tenant_id))
    data = [base_model_object(name) for name in context.settings.base_models]
    return {"object": "list", "data": data + [model_object(model, caller.tenant_name) for model in own]}


@router.put("/{model_id:path}/aliases/{name}")
def put_alias(model_id: str, name: str, context: Here, caller: Calling) -> dict[str, Any]:
    """Point `FAMILY@NAME` at this model."""
    with context.database.writing() as session:
        scope = Scope(session, caller.tenant_id)
        alias = set_alias(scope, the_model(scope, model_id, "id"), name)
        return {"object": "model.alias", "name": f"{alias.family}@{alias.name}", "model": alias.model_id}


@router.delete("/{model_id:path}/aliases/{name}")
def remove_alias(model_id: str, name: str, context: Here, caller: Calling) -> dict[str, Any]:
    """Take an alias away from this model."""
    with context.database.writing() as session:
        scope = Scope(session, caller.tenant_id)
        model = the_model(scope, model_id, "id")
        if not delete_alias(scope, model, name):
            raise missing("alias of this model", name, "alias_not_found")
        return {"object": "model.alias", "name": f"{model.family}@{name}", "deleted": True}


@router.get("/{model_id:path}")
@short_read
def read(model_id: str, context: Here, caller: Calling) -> dict[str, Any]:
    """One model."""
    with context.database.reading() as session:
        scope = Scope(session, caller.tenant_id)
        if model_id in context.settings.base_models and find_model(scope, model_id) is None:
            return base_model_object(model_id)
        model = the_model(scope, model_id, "id")
        return model_object(model, caller.tenant_name, aliases_of(scope, model))


@router.delete("/{model_id:path}")
def remove(model_id: str, context: Here, caller: Calling) -> dict[str, Any]:
    """Delete a model."""
    with context.database.writing() as session:
        scope = Scope(session, caller.tenant_id)
        delete_model(scope, the_model(scope, model_id, "id"))
    return {"id": model_id, "object": "model", "deleted": True}
