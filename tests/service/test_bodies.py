"""What a request asks for, and every way in which it cannot be met."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bodies import CHAT, CLASSIFY, IGNORED, MAX_INPUTS, Asked, read_body
from service.refused import UploadRefused

USER = {"role": "user", "content": "hello"}
FIELDS = st.sampled_from(
    ["model", "input", "messages", "role", "user", "content", "type", "text", "logprobs", "top_logprobs", "n", "stream"]
)
PARTS = [{"type": "text", "text": "first"}, {"type": "text", "text": "second"}]


def problem(endpoint: str, body: dict[str, Any]) -> tuple[str, str | None, str]:
    """Message, param and code."""
    with pytest.raises(UploadRefused) as caught:
        read_body(endpoint, body)
    return caught.value.message, caught.value.param, caught.value.code


@pytest.mark.parametrize(("value", "texts"), [("x", ["x"]), (["x"], ["x"]), (["x", " ü\n"], ["x", " ü\n"])])
def test_a_text_or_several(value: Any, texts: list[str]) -> None:
    assert read_body(CLASSIFY, {"model": "m", "input": value}) == Asked("m", texts)


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([USER], "hello"),
        ([{"role": "system", "content": "be kind"}, USER], "hello"),
        ([USER, {"role": "assistant", "content": "yes?"}, {"role": "user", "content": "last"}], "last"),
        ([USER, {"role": "assistant", "content": None}], "hello"),
        ([{"role": "user", "content": PARTS}], "first\nsecond"),
    ],
)
def test_the_last_user_message_is_the_text(messages: list[Any], text: str) -> None:
    assert read_body(CHAT, {"model": "m", "messages": messages}) == Asked("m", [text])


@pytest.mark.parametrize(
    ("fields", "top_logprobs"),
    [
        ({}, None),
        ({"logprobs": False}, None),
        ({"logprobs": None, "top_logprobs": None}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 20}, 20),
    ],
)
def test_log_probabilities_only_where_they_are_asked_for(fields: dict[str, Any], top_logprobs: int | None) -> None:
    assert read_body(CHAT, {"model": "m", "messages": [USER]} | fields).top_logprobs == top_logprobs


def test_what_means_nothing_to_a_classifier_is_ignored() -> None:
    known = dict.fromkeys(IGNORED, "anything")
    harmless = {"n": 1, "stream": False, "response_format": {"type": "text"}}
    assert read_body(CHAT, {"model": "m", "messages": [USER]} | known | harmless).texts == ["hello"]
    assert read_body(CLASSIFY, {"model": "m", "input": "x"} | known).texts == ["x"]


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        ({"input": "x"}, "model: expected the id of a model, found nothing", "model"),
        ({"model": 3, "input": "x"}, "model: expected the id of a model, found a number", "model"),
        ({"model": "m" * 300, "input": "x"}, "model: expected the id of a model, found 300 characters", "model"),
        ({"model": "m"}, "input: expected a string or a list of strings, found nothing", "input"),
        ({"model": "m", "input": []}, "input: expected a string or a list of strings, found an empty list", "input"),
        ({"model": "m", "input": " \n"}, "input: the text is empty; fill it or leave it out", "input"),
        ({"model": "m", "input": ["x", ""]}, "input[1]: the text is empty; fill it or leave it out", "input[1]"),
        ({"model": "m", "input": ["x", [7]]}, "input[1]: expected a string, found a list", "input[1]"),
        (
            {"model": "m", "input": ["x"] * (MAX_INPUTS + 1)},
            "input: expected at most 2,048 texts, found 2,049; split the request",
            "input",
        ),
    ],
)
def test_what_classify_cannot_take(body: dict[str, Any], message: str, param: str) -> None:
    assert problem(CLASSIFY, body) == (message, param, "invalid_value")


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (None, "messages: expected a list of messages, found nothing"),
        ([], "messages: expected a list of messages, found an empty list"),
        ("hello", "messages: expected a list of messages, found a string"),
        ([USER, "x"], "messages[1]: expected an object with role and content, found a string"),
        ([{"content": "x"}], "messages[0]: expected an object with role and content, found no role"),
        (
            [{"role": "system", "content": "x"}],
            "messages: expected a message with the role user, whose text is classified, found none",
        ),
        ([{"role": "user"}], "messages[0].content: expected a string or a list of text parts, found nothing"),
        ([{"role": "user", "content": ""}], "messages[0].content: the text is empty; fill it or leave it out"),
        ([{"role": "user", "content": []}], "messages[0].content: the text is empty; fill it or leave it out"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            'messages[0].content[0]: expected a text part {"type": "text", "text": ...}, found the type \'image_url\'',
        ),
        (
            [{"role": "user", "content": [{"type": "text"}]}],
            "messages[0].content[0]: expected a string as its text, found nothing",
        ),
    ],
)
def test_messages_without_a_text_to_classify(messages: Any, message: str) -> None:
    assert problem(CHAT, {"model": "m", "messages": messages})[0] == message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 2}, "n: a classifier gives one choice; leave n out or set it to 1"),
        ({"stream": True}, "stream: a label is not streamed; leave stream out or set it to false"),
        (
            {"response_format": {"type": "json_object"}},
            "response_format: the reply is the label as text; leave response_format out",
        ),
        ({"logprobs": 3}, "logprobs: expected true or false, found a number"),
        ({"top_logprobs": 3}, "top_logprobs: log probabilities are off; set logprobs to true as well"),
        *(
            (
                {"logprobs": True, "top_logprobs": value},
                f"top_logprobs: expected a whole number from 0 to 20, found {value}; "
                "/v1/classify gives the probabilities of all labels",
            )
            for value in (-1, 21, 2.5, True)
        ),
    ],
)
def test_values_that_ask_for_what_there_is_not(fields: dict[str, Any], message: str) -> None:
    found = problem(CHAT, {"model": "m", "messages": [USER]} | fields)
    assert found == (message, message.partition(":")[0], "invalid_value")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS | st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(st.sampled_from([CLASSIFY, CHAT]), st.dictionaries(FIELDS, JSON), st.booleans())
def test_any_json_is_read_or_refused(endpoint: str, body: dict[str, Any], complete: bool) -> None:
    """With and without a body that is fine but for these fields."""
    fine = {"model": "m", "input": "x"} if endpoint == CLASSIFY else {"model": "m", "messages": [USER]}
    problem: UploadRefused | None = None
    asked = Asked("", [])
    try:
        asked = read_body(endpoint, fine | body if complete else body)
    except UploadRefused as error:
        problem = error
    assert problem is None or (problem.param and len(problem.message) < 400)
    assert bool(asked.texts) == (problem is None)
    assert all(isinstance(text, str) and text.strip() for text in asked.texts)


@pytest.mark.parametrize("field", ["model", "messages", "logprobs", "top_logprobs", "n", "stream", "response_format"])
def test_what_is_nested_deeply_is_refused_like_anything_else(field: str) -> None:
    deep: Any = "x"
    for _ in range(900):  # what the reader of lines lets through
        deep = [deep]
    for value in (deep, [{"role": "user", "content": deep}], [{"role": "user", "content": [{"type": deep}]}]):
        with pytest.raises(UploadRefused):
            read_body(CHAT, {"model": "m", "messages": [USER]} | {field: value})


def test_an_unknown_field_is_named() -> None:
    found = problem(CLASSIFY, {"model": "m", "input": "x", "tempreature": 1})
    assert found == ("tempreature: unknown field; remove it or check its spelling", "tempreature", "unknown_parameter")
    assert problem(CHAT, {"model": "m", "input": "x"})[1] == "input"
