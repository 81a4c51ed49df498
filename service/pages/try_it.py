"""Try it: a text, one or several models -> scores against operating points, words that moved them, neighbours."""

from __future__ import annotations

import json
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Request
from starlette.datastructures import FormData
from starlette.responses import Response

from pipelines.highlights import pieces
from service.auth import Calling
from service.context import Context, context_of
from service.database import Scope
from service.errors import ApiError
from service.keys import Caller
from service.models import folder_of, the_model
from service.pages.choices import model_choices
from service.pages.forms import form_of, word
from service.pages.looks import look_and_figures
from service.pages.render import PageRoute, go, page
from service.routes import looks
from service.routes.classify import answer_of
from service.schemas import ExplainRequest
from service.sessions import is_partial
from service.verified import intact_in

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Here = Annotated[Context, Depends(context_of)]
Form = Annotated[FormData, Depends(form_of)]
MOST = 5  # models at once
SHADES = 9  # darkness of a word, as classes of the stylesheet
SHOWN = 12  # classes with their scores


@router.get("/try")
def ask(request: Request, context: Here, caller: Calling, model: str = "") -> Response:
    """The form; `model` is chosen already."""
    return page(request, "try", **_asked(context, caller, [model] if model else [], ""), answers=[])


@router.post("/try")
async def answer(request: Request, context: Here, caller: Calling, form: Form) -> Response:
    """Scores of a text by every chosen model."""
    text, names = word(form, "text"), [str(name) for name in form.getlist("model") if name]
    if not text:
        raise ApiError(400, "Expected a text, found none")
    if not 1 <= len(names) <= MOST:
        raise ApiError(400, f"Expected 1 to {MOST} models, found {len(names)}")
    answers = [await _scores(context, caller, name, text) for name in names]
    asked = await to_thread.run_sync(_asked, context, caller, names, text)
    name = "answers" if is_partial(request) else "try"
    return page(request, name, **asked, answers=answers)


@router.post("/try/why")
def why(request: Request, context: Here, caller: Calling, form: Form) -> Response:
    """Have one answer explained."""
    body = ExplainRequest(model=word(form, "model"), input=[word(form, "text")])
    id = looks.explain(body, request, context, caller)["id"]
    return _explanation(request, context, caller, id) if is_partial(request) else go(request, f"/jobs/{id}")


@router.get("/explanations/{look_id}")
def explained(look_id: str, request: Request, context: Here, caller: Calling) -> Response:
    """How far an explanation is, or what it says."""
    return _explanation(request, context, caller, look_id)


def _asked(context: Context, caller: Caller, chosen: list[str], text: str) -> dict[str, Any]:
    with context.database.reading() as session:
        models = model_choices(Scope(session, caller.tenant_id))
    return {"models": models, "chosen": chosen or [models[0].id if models else ""], "text": text, "most": MOST}


async def _scores(context: Context, caller: Caller, name: str, text: str) -> dict[str, Any]:
    """What a model says: its classes, the surest first, and which operating points the text reaches."""
    said = await answer_of(context, caller, name, [text], "input")
    ranked = sorted(zip(said.labels, said.probabilities[0], strict=True), key=lambda pair: -pair[1])
    points = await to_thread.run_sync(_points, context, caller, name, dict(ranked))
    return {"model": name, "ranked": ranked[:SHOWN], "more": max(0, len(ranked) - SHOWN), "points": points}


def _points(context: Context, caller: Caller, name: str, scores: dict[str, float]) -> list[dict[str, Any]]:
    """Thresholds that the model's report promises, with whether the text is flagged by each."""
    with context.database.reading() as session:
        folder = folder_of(context.settings, the_model(Scope(session, caller.tenant_id), name))
    found = json.loads(intact_in(folder, "report.json").read_text(encoding="utf-8")).get("operating_points") or {
        "points": []
    }
    held = [point for point in found["points"] if point["threshold"] is not None and point["class"] in scores]
    return [point | {"flagged": scores[point["class"]] >= point["threshold"]} for point in held]


def _explanation(request: Request, context: Context, caller: Caller, look_id: str) -> Response:
    _, shown, found = look_and_figures(context, caller, look_id, "explain")
    return page(request, "why", look=shown, found=found, shaded=[] if found is None else _shaded(found["items"][0]))


def _shaded(item: dict[str, Any]) -> list[tuple[str, str]]:
    """The text in pieces, each with the class of the stylesheet that shades it; empty for none."""
    words = [(each["word"], each["attribution"]) for each in item["words"]]
    return [(piece.text, _shade(piece.share)) for piece in pieces(item["text"], words)]


def _shade(share: float) -> str:
    degree = max(1, round(SHADES * abs(share)))
    return "" if not share else f"{'towards' if share > 0 else 'away'} d{degree}"
