"""New classifier: a file -> what it holds and what is wrong with it -> settings and what they cost -> a job.

The address of the second page names the data check that reads the file, so that a reader can come back to it.
"""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from starlette.datastructures import FormData
from starlette.responses import Response

from pipelines.base_models import hidden_layers
from service import jobs
from service.auth import Calling
from service.context import Context, context_of
from service.database import Scope
from service.files import get_file
from service.keys import Caller
from service.models import find_model
from service.pages.choices import model_choices
from service.pages.forms import form_of, kept_file, number, raw, word
from service.pages.looks import look_and_figures
from service.pages.render import PageRoute, go, page
from service.routes import jobs as fine_tuning
from service.routes import looks
from service.schemas import CheckRequest, JobRequest
from service.sessions import is_partial
from service.tables import Job

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Here = Annotated[Context, Depends(context_of)]
Form = Annotated[FormData, Depends(form_of)]
DEPTHS = ("auto", "all", "none")  # or a number of layers
COLUMNS = ("text", "label", "group", "id")
DEFAULT_DEPTH = 4  # that an estimate stands for where the depth is still to be chosen
DEEPEST = 12  # hidden layers of a backbone that is not known here


@router.get("/new")
def choose_file(request: Request, _: Calling, start: str = "") -> Response:
    """The first page."""
    return page(request, "new", start=start)


@router.post("/new")
def upload(request: Request, context: Here, caller: Calling, form: Form) -> Response:
    """Keep the file and have it checked."""
    file_id = kept_file(context, caller, form, "fine-tune")
    return go(request, checked(request, context, caller, file_id, {}, word(form, "start")))


@router.get("/new/{check_id}")
def settings(check_id: str, request: Request, context: Here, caller: Calling, start: str = "") -> Response:
    """The second page."""
    return page(request, "new_settings", **_seen(context, caller, check_id), **_choices(context, caller), start=start)


@router.get("/new/{check_id}/data")
def data(check_id: str, request: Request, context: Here, caller: Calling, start: str = "") -> Response:
    """The part of it that says what the file holds."""
    return page(request, "new_data", **_seen(context, caller, check_id), start=start)


@router.post("/new/{check_id}/columns")
def columns(check_id: str, request: Request, context: Here, caller: Calling, form: Form) -> Response:
    """Read the same file with other columns."""
    check = _check(context, caller, check_id)
    mapping = {key: raw(form, key) for key in COLUMNS if raw(form, key)}
    file_id = check.request["training_file"]
    return go(request, checked(request, context, caller, file_id, mapping, word(form, "start")))


@router.post("/new/{check_id}/estimate")
def estimate(check_id: str, request: Request, context: Here, caller: Calling, form: Form) -> Response:
    """Have the cost of these settings measured; the estimate before is of no use any more."""
    earlier = word(form, "estimate")
    if earlier:
        _give_up(context, caller, earlier)
    body = _body(_check(context, caller, check_id), form)
    if body.backbone["freeze"] == "auto":
        body.backbone["freeze"] = min(DEFAULT_DEPTH, _layers(context, caller, body.model))
    id = looks.estimate(body, request, context, caller)["id"]
    return _estimate(request, context, caller, id) if is_partial(request) else go(request, f"/jobs/{id}")


@router.get("/estimates/{look_id}")
def estimated(look_id: str, request: Request, context: Here, caller: Calling) -> Response:
    """How far an estimate is, or what it says."""
    return _estimate(request, context, caller, look_id)


@router.post("/new/{check_id}/train")
def train(check_id: str, request: Request, context: Here, caller: Calling, form: Form) -> Response:
    """Submit the job."""
    body = _body(_check(context, caller, check_id), form)
    if word(form, "estimate"):
        _give_up(context, caller, word(form, "estimate"))
    return go(request, f"/jobs/{fine_tuning.create(body, request, context, caller)['id']}")


# ---- the file


def checked(
    request: Request, context: Context, caller: Caller, file_id: str, mapping: dict[str, str], start: str
) -> str:
    """Submit a data check. Returns the address of its page."""
    model = next(iter(context.settings.base_models))
    body = CheckRequest.model_validate({"training_file": file_id, "data": mapping, "model": model})
    check = looks.check(body, request, context, caller)
    return f"/new/{check['id']}" + (f"?{urlencode({'start': start})}" if start else "")


def _check(context: Context, caller: Caller, check_id: str) -> Job:
    return look_and_figures(context, caller, check_id, "check")[0]


def _seen(context: Context, caller: Caller, check_id: str) -> dict[str, Any]:
    """What is known of the file by now."""
    job, shown, found = look_and_figures(context, caller, check_id, "check")
    with context.database.reading() as session:
        file = get_file(Scope(session, caller.tenant_id), job.request["training_file"])
    return {
        "check": shown,
        "file": file,
        "plan": job.progress.get("plan") or {},
        "mapping": job.request["data"],
        "error": job.error,
        "findings": found["checks"] if found else [],
    }


# ---- the settings


def _choices(context: Context, caller: Caller) -> dict[str, Any]:
    with context.database.reading() as session:
        models = model_choices(Scope(session, caller.tenant_id))
    known = [hidden_layers(name) or DEEPEST for name in context.settings.base_models.values()]
    return {"bases": list(context.settings.base_models), "models": models, "depths": range(1, max(known))}


def _layers(context: Context, caller: Caller, name: str) -> int:
    """Hidden layers of a base model, or of that of the tenant's own model."""
    with context.database.reading() as session:
        own = find_model(Scope(session, caller.tenant_id), name)
    base = own.base if own is not None else name
    return hidden_layers(context.settings.base_models.get(base, base)) or DEEPEST


def _body(check: Job, form: FormData) -> JobRequest:
    """The request that an API call would make. Raises ApiError 400."""
    depth = word(form, "depth") or "auto"
    training = {name: number(form, name) for name in ("epochs",) if word(form, name)}
    asked = {
        "model": word(form, "model"),
        "training_file": check.request["training_file"],
        "suffix": word(form, "name") or None,
        "data": check.request["data"],
        "backbone": {"freeze": depth if depth in DEPTHS else number(form, "depth")},
        "adapter": {"type": "lora"} if word(form, "train") == "lora" else {},
        "training": training,
    }
    return JobRequest.model_validate(asked)


# ---- the estimate


def _estimate(request: Request, context: Context, caller: Caller, look_id: str) -> Response:
    _, shown, found = look_and_figures(context, caller, look_id, "estimate")
    return page(request, "estimate", estimate=shown, found=found)


def _give_up(context: Context, caller: Caller, look_id: str) -> None:
    """Cancel an estimate that nobody waits for any more."""
    job, _, _ = look_and_figures(context, caller, look_id, "estimate")
    if job.status not in jobs.FINAL:
        looks.cancel(look_id, context, caller)
