"""Live classification: our own route, chat completions for scripts with a fine-tuned classifier, Hugging Face's."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends

from service.auth import Calling
from service.bodies import CHAT, CLASSIFY, MAX_INPUTS, read_body
from service.context import Context, context_of
from service.database import Scope
from service.errors import ApiError, invalid
from service.ids import new_id
from service.inference.client import Inference
from service.inference.errors import InferenceError
from service.inference.records import Answer as Predicted
from service.keys import Caller
from service.models import folder_of, the_model
from service.replies import Answer, chat_reply, classify_reply
from service.rights import GuardedRoute
from service.schemas import ChatRequest, ClassifyRequest, HuggingFaceRequest

router = APIRouter(route_class=GuardedRoute, tags=["classify"])
Here = Annotated[Context, Depends(context_of)]
STATUS = {"overloaded": 429, "unavailable": 503, "invalid_text": 400, "request_too_large": 413, "model_too_large": 400}


@router.post("/v1/classify")
async def classify(body: ClassifyRequest, context: Here, caller: Calling) -> dict[str, Any]:
    """Classes of texts, with the probability of every class."""
    asked = read_body(CLASSIFY, body.model_dump(exclude_unset=True))
    answer = await answer_of(context, caller, asked.model, asked.texts, "input")
    return classify_reply(_said(answer), asked.texts, new_id("classify-"), int(time.time()), asked.model)


@router.post("/v1/chat/completions")
async def chat(body: ChatRequest, context: Here, caller: Calling) -> dict[str, Any]:
    """The class of the last user message, as the assistant's answer."""
    asked = read_body(CHAT, body.model_dump(exclude_unset=True))
    answer = await answer_of(context, caller, asked.model, asked.texts, "messages")
    reply = (new_id("chatcmpl-"), int(time.time()), asked.model, asked.top_logprobs)
    return chat_reply(_said(answer)[0], asked.texts[0], *reply)


@router.post("/hf/models/{model_id:path}")
async def hugging_face(
    model_id: str, body: HuggingFaceRequest, context: Here, caller: Calling
) -> list[list[dict[str, Any]]]:
    """Hugging Face's text-classification route: a list of labels with scores for every text."""
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    answer = await answer_of(context, caller, model_id, texts, "inputs")
    most = body.parameters.get("top_k") or len(answer.labels)
    if not isinstance(most, int) or most < 1:
        raise invalid(f"expected a number of classes, 1 or more; found {most!r}", "parameters.top_k")
    return [_ranked(answer, row)[:most] for row in answer.probabilities]


def _said(answer: Predicted) -> list[Answer]:
    found = [dict(zip(answer.labels, row, strict=True)) for row in answer.probabilities]
    return [Answer(max(each, key=lambda label: each[label]), each) for each in found]


def _ranked(answer: Predicted, row: list[float]) -> list[dict[str, Any]]:
    pairs = sorted(zip(answer.labels, row, strict=True), key=lambda pair: -pair[1])
    return [{"label": label, "score": score} for label, score in pairs]


async def answer_of(context: Context, caller: Caller, name: str, texts: list[str], param: str) -> Predicted:
    if not 1 <= len(texts) <= MAX_INPUTS:
        raise invalid(f"expected 1 to {MAX_INPUTS} texts, found {len(texts)}; a batch takes more", param)
    folder = await to_thread.run_sync(_folder, context, caller, name, len(texts))
    try:
        return await _ask(context.inference, folder, texts, param)
    except ApiError:
        context.live_rows.give_back(caller.tenant_id, len(texts))
        raise


def _folder(context: Context, caller: Caller, name: str, rows: int) -> Path:
    """Of the model; the rows are counted. Raises ApiError 404, 403."""
    with context.database.reading() as session:
        folder = folder_of(context.settings, the_model(Scope(session, caller.tenant_id), name))
    context.live_rows.take(caller.tenant_id, rows)
    return folder


async def _ask(inference: Inference, folder: Path, texts: list[str], param: str) -> Predicted:
    try:
        return await inference.classify(folder, texts)
    except InferenceError as error:
        status = STATUS.get(error.code, 500)
        headers = {"Retry-After": "1"} if status in (429, 503) else {}
        message = str(error) if status < 500 else "The model cannot be used; the server's log says more"
        raise ApiError(status, message, error.code, param if status < 429 else None, headers) from error
