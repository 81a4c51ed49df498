"""Models: their aliases, where they come from, how good they are, and any two side by side on any labelled file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.datastructures import FormData
from starlette.responses import Response

from service.auth import Calling
from service.context import Context, context_of
from service.database import Scope
from service.errors import ApiError, missing
from service.files import get_file
from service.models import aliases_of, delete_alias, delete_model, find_model, folder_of, set_alias
from service.pages.choices import CHAMPION, aliases_by_model, model_choices
from service.pages.forms import form_of, kept_file, word
from service.pages.render import HEADERS, PageRoute, go, page
from service.paging import page as page_of
from service.routes import comparisons
from service.schemas import CompareRequest
from service.tables import Job, Model
from service.verified import intact_in

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Here = Annotated[Context, Depends(context_of)]
Form = Annotated[FormData, Depends(form_of)]
LISTED, FAMILY = 25, 50
DOWNLOADS = {"report.json": "application/json", "README.md": "text/markdown", "config.yaml": "text/yaml"}


@router.get("/models")
def models(request: Request, context: Here, caller: Calling, after: str | None = None) -> Response:
    """All models, the newest first."""
    with context.database.reading() as session:
        scope = Scope(session, caller.tenant_id)
        cursor = None if after is None else _model(scope, after).id
        rows, more = page_of(scope, Model, cursor, LISTED, Model.deleted_at.is_(None))
        aliases = aliases_by_model(scope, [row.id for row in rows])
    older = rows[-1].job_id if more else None
    return page(request, "models", models=rows, aliases=aliases, older=older, bases=list(context.settings.base_models))


@router.get("/models/{job_id}")
def read(job_id: str, request: Request, context: Here, caller: Calling) -> Response:
    """One model. Its address is that of the job that made it: ids hold colons and slashes."""
    with context.database.reading() as session:
        scope = Scope(session, caller.tenant_id)
        model = _model(scope, job_id)
        job = scope.get(Job, model.job_id)
        assert job is not None
        asked = job.request
        parent = find_model(scope, asked["start_from"]) if asked.get("start_from") else None
        seen: dict[str, Any] = {
            "model": model,
            "aliases": aliases_of(scope, model),
            "versions": _family(scope, model),
            "parent": parent,
            "data": get_file(scope, asked["training_file"]),
        }
    folder = folder_of(context.settings, model)
    seen |= {"size": _bytes(folder), "report": _report(folder), "config": _text(context, model, "config.yaml")}
    return page(request, "model", **seen, card=_text(context, model, "README.md"), downloads=list(DOWNLOADS))


@router.get("/models/{job_id}/files/{name}")
def download(job_id: str, name: str, context: Here, caller: Calling) -> Response:
    """One of DOWNLOADS."""
    if name not in DOWNLOADS:
        raise ApiError(404, "There is no such file")
    with context.database.reading() as session:
        model = _model(Scope(session, caller.tenant_id), job_id)
    content = _text(context, model, name)
    if not content:
        raise ApiError(404, f"The model has no {name}")
    headers = HEADERS | {"Content-Disposition": f'attachment; filename="{job_id}-{name}"'}
    return Response(content, media_type=DOWNLOADS[name], headers=headers)


@router.post("/models/{job_id}/aliases")
def put_alias(job_id: str, request: Request, context: Here, caller: Calling, form: Form) -> Response:
    """Point an alias of the family here; rolling back is pointing it at an earlier model again."""
    with context.database.writing() as session:
        scope = Scope(session, caller.tenant_id)
        set_alias(scope, _model(scope, job_id), word(form, "name") or CHAMPION)
    return go(request, f"/models/{job_id}")


@router.post("/models/{job_id}/aliases/remove")
def remove_alias(job_id: str, request: Request, context: Here, caller: Calling, form: Form) -> Response:
    """Take an alias away."""
    with context.database.writing() as session:
        scope = Scope(session, caller.tenant_id)
        delete_alias(scope, _model(scope, job_id), word(form, "name"))
    return go(request, f"/models/{job_id}")


@router.post("/models/{job_id}/delete")
def remove(job_id: str, request: Request, context: Here, caller: Calling, _: Form) -> Response:
    """Delete a model that no alias names."""
    with context.database.writing() as session:
        scope = Scope(session, caller.tenant_id)
        delete_model(scope, _model(scope, job_id))
    return go(request, "/models")


@router.get("/compare")
def ask(request: Request, context: Here, caller: Calling, model: str = "") -> Response:
    """The form that sets models side by side."""
    with context.database.reading() as session:
        models = model_choices(Scope(session, caller.tenant_id))
    return page(request, "compare", models=models, chosen=model)


@router.post("/compare")
def compare(request: Request, context: Here, caller: Calling, form: Form) -> Response:
    """Two models on a labelled file, as a job."""
    names = [str(name) for name in form.getlist("model") if name]
    if len(set(names)) != len(names) or not names:
        raise ApiError(400, "Expected one or more different models")
    file_id = kept_file(context, caller, form, "user_data")
    mapping = {key: word(form, key) for key in ("text", "label") if word(form, key)}
    body = CompareRequest.model_validate({"models": names, "file_id": file_id, "data": mapping})
    return go(request, f"/jobs/{comparisons.create(body, request, context, caller)['id']}")


def _model(scope: Scope, job_id: str) -> Model:
    """The model that a job made. Raises ApiError 404."""
    live = scope.select(Model).where(Model.job_id == job_id, Model.deleted_at.is_(None))
    model = scope.session.scalars(live).one_or_none()
    if model is None:
        raise missing("model", job_id, "model_not_found")
    return model


def _family(scope: Scope, model: Model) -> list[tuple[Model, list[str]]]:
    """Models that share aliases with this one, the newest first, with the aliases of each."""
    live = scope.select(Model).where(Model.family == model.family, Model.deleted_at.is_(None))
    models = list(scope.session.scalars(live.order_by(Model.seq.desc()).limit(FAMILY)))
    aliases = aliases_by_model(scope, [each.id for each in models])
    return [(each, aliases.get(each.id, [])) for each in models]


def _report(folder: Path) -> dict[str, Any] | None:
    """Verdict and figures of the report, with intervals."""
    path = folder / "report.json"
    if not path.is_file():
        return None
    found = json.loads(intact_in(folder, path.name).read_text(encoding="utf-8"))
    shown = [
        {"name": each["name"], **{key: each["metrics"][key] for key in ("macro_f1", "macro_f1_ci", "accuracy")}}
        for each in found["systems"]
    ]
    return {"sentence": found["verdict"]["sentence"], "systems": shown, "main": found["main"], "items": found["n_test"]}


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _text(context: Context, model: Model, name: str) -> str:
    """A file of the model's; where the server keeps its things is left out."""
    folder = folder_of(context.settings, model)
    text = intact_in(folder, name).read_text(encoding="utf-8") if (folder / name).is_file() else ""
    return text.replace(f"{context.settings.tenant_dir(model.tenant_id)}/", "")
