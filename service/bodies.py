"""Request bodies of the two endpoints that classify -> the texts to classify.

Fields of OpenAI's that mean nothing to a classifier are ignored; a field that nobody knows is refused, and so is a
value that asks for what a classifier cannot give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.refused import INVALID_VALUE, UploadRefused

CLASSIFY, CHAT = "/v1/classify", "/v1/chat/completions"
ENDPOINTS = (CLASSIFY, CHAT)
MAX_INPUTS = 2048  # texts of one request, as OpenAI's embeddings take: its reply is held in memory
MAX_TOP_LOGPROBS = 20  # as OpenAI's
MODEL_CHARACTERS = 256
IGNORED = frozenset(
    {
        *("audio", "frequency_penalty", "function_call", "functions", "logit_bias", "max_completion_tokens"),
        *("max_tokens", "metadata", "modalities", "parallel_tool_calls", "prediction", "presence_penalty"),
        *("prompt_cache_key", "prompt_cache_retention", "reasoning_effort", "safety_identifier", "seed"),
        *("service_tier", "stop", "store", "stream_options", "temperature", "tool_choice", "tools", "top_p"),
        *("user", "verbosity", "web_search_options"),
    }
)
_OWN = {
    CLASSIFY: {"model", "input"},
    CHAT: {"model", "messages", "logprobs", "top_logprobs", "n", "stream", "response_format"},
}
_JSON_TYPES = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}


@dataclass(frozen=True)
class Asked:
    """What a request asks for.

    Attributes:
        model: as the request calls it.
        texts: none of them blank.
        top_logprobs: how many labels to list with their log probabilities; None: no log probabilities.
    """

    model: str
    texts: list[str]
    top_logprobs: int | None = None


def read_body(endpoint: str, body: Mapping[str, Any]) -> Asked:
    """Read the body of a request to one of ENDPOINTS. Raises UploadRefused, with `param`, where it cannot be met."""
    _check_fields(endpoint, body)
    model = body.get("model")
    if not isinstance(model, str) or not model.strip() or len(model) > MODEL_CHARACTERS:
        found = f"{len(model):,} characters" if isinstance(model, str) and model.strip() else json_type(model)
        raise refused("model", f"expected the id of a model, found {found}")
    if endpoint == CLASSIFY:
        return Asked(model, _inputs(body.get("input")))
    _check_choice(body)
    return Asked(model, [last_user_text(turns(body.get("messages")))], _top_logprobs(body))


def turns(messages: Any) -> list[dict[str, Any]]:
    """The messages of a chat: a list of objects with a role each, not empty."""
    if not isinstance(messages, list) or not messages:
        found = "an empty list" if messages == [] else json_type(messages)
        raise refused("messages", f"expected a list of messages, found {found}")
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            found = "no role" if isinstance(message, dict) else json_type(message)
            raise refused(f"messages[{number}]", f"expected an object with role and content, found {found}")
    return messages


def last_user_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """What the last message of the user says."""
    numbers = [number for number, message in enumerate(messages) if message["role"] == "user"]
    if not numbers:
        raise refused("messages", "expected a message with the role user, whose text is classified, found none")
    return content_text(messages[numbers[-1]].get("content"), f"messages[{numbers[-1]}].content")


def content_text(content: Any, place: str) -> str:
    """The text of a message: a string, or the text parts of a list, a line each."""
    if isinstance(content, list):
        content = "\n".join(_part_text(part, f"{place}[{number}]") for number, part in enumerate(content))
    if not isinstance(content, str):
        raise refused(place, f"expected a string or a list of text parts, found {json_type(content)}")
    return filled(content, place)


def filled(text: str, place: str) -> str:
    """The text itself. Raises UploadRefused where it is blank."""
    if not text.strip():
        raise refused(place, "the text is empty; fill it or leave it out")
    return text


def json_type(value: Any) -> str:
    """A value's type in the words of JSON, to say what was found."""
    return "nothing" if value is None else _JSON_TYPES.get(type(value), type(value).__name__)


def shown(value: Any) -> str:
    """A number, or the type of anything else: what is nested deeply has no text."""
    return str(value)[:40] if isinstance(value, int | float) else json_type(value)


def refused(place: str, problem: str) -> UploadRefused:
    return UploadRefused(f"{place}: {problem}", INVALID_VALUE, place)


def _part_text(part: Any, place: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind != "text":
        found = f"the type {kind[:40]!r}" if isinstance(kind, str) else json_type(part)
        raise refused(place, f'expected a text part {{"type": "text", "text": ...}}, found {found}')
    if not isinstance(part.get("text"), str):
        raise refused(place, f"expected a string as its text, found {json_type(part.get('text'))}")
    text: str = part["text"]
    return text


def _inputs(value: Any) -> list[str]:
    if isinstance(value, str):
        return [filled(value, "input")]
    if not isinstance(value, list) or not value:
        found = "an empty list" if value == [] else json_type(value)
        raise refused("input", f"expected a string or a list of strings, found {found}")
    if len(value) > MAX_INPUTS:
        raise refused("input", f"expected at most {MAX_INPUTS:,} texts, found {len(value):,}; split the request")
    for number, text in enumerate(value):
        if not isinstance(text, str):
            raise refused(f"input[{number}]", f"expected a string, found {json_type(text)}")
        filled(text, f"input[{number}]")
    return value


def _check_fields(endpoint: str, body: Mapping[str, Any]) -> None:
    unknown = next((name for name in body if name not in IGNORED and name not in _OWN[endpoint]), None)
    if unknown is not None:
        name = unknown[:80]
        raise UploadRefused(f"{name}: unknown field; remove it or check its spelling", "unknown_parameter", name)


def _check_choice(body: Mapping[str, Any]) -> None:
    """A classifier gives one choice, whole, and its label as it is."""
    if body.get("n") not in (None, 1):
        raise refused("n", "a classifier gives one choice; leave n out or set it to 1")
    if body.get("stream") not in (None, False):
        raise refused("stream", "a label is not streamed; leave stream out or set it to false")
    wanted = body.get("response_format")
    if wanted is not None and not (isinstance(wanted, dict) and wanted.get("type") == "text"):
        raise refused("response_format", "the reply is the label as text; leave response_format out")


def _top_logprobs(body: Mapping[str, Any]) -> int | None:
    asked, most = body.get("logprobs"), body.get("top_logprobs")
    if asked is not None and not isinstance(asked, bool):
        raise refused("logprobs", f"expected true or false, found {json_type(asked)}")
    if most is None:
        return 0 if asked else None
    if isinstance(most, bool) or not isinstance(most, int) or not 0 <= most <= MAX_TOP_LOGPROBS:
        raise refused(
            "top_logprobs",
            f"expected a whole number from 0 to {MAX_TOP_LOGPROBS}, found {shown(most)}; "
            f"{CLASSIFY} gives the probabilities of all labels",
        )
    if not asked:
        raise refused("top_logprobs", "log probabilities are off; set logprobs to true as well")
    return most
