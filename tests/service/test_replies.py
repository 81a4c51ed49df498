"""The two reply bodies and that of an error: every key, logarithms that are JSON, the chosen label first."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.replies import UNLIKELY, Answer, chat_reply, classify_reply, error_reply

ANSWER = Answer("b", {"a": 0.25, "b": 0.625, "c": 0.125, "d": 0.0})


def logprobs(answer: Answer, most: int | None) -> list[tuple[str, float]]:
    """Label and logarithm of the entries that are listed."""
    entry = chat_reply(answer, "x", "chatcmpl-1", 5, "m", most)["choices"][0]["logprobs"]["content"][0]
    return [(one["token"], one["logprob"]) for one in entry["top_logprobs"]]


def test_classify_gives_all_probabilities_in_the_order_of_the_labels() -> None:
    other = Answer("a", {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0})
    assert classify_reply([ANSWER, other], ["two words", "one"], "classify-1", 5, "ft:m") == {
        "id": "classify-1",
        "object": "list",
        "created": 5,
        "model": "ft:m",
        "data": [
            {"index": 0, "label": "b", "probs": [0.25, 0.625, 0.125, 0.0], "num_classes": 4},
            {"index": 1, "label": "a", "probs": [1.0, 0.0, 0.0, 0.0], "num_classes": 4},
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3, "prompt_tokens_details": None},
    }


def test_chat_gives_the_label_as_the_message() -> None:
    assert chat_reply(ANSWER, "two words", "chatcmpl-1", 5, "ft:m") == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 5,
        "model": "ft:m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "b", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3},
        "system_fingerprint": None,
    }


@pytest.mark.parametrize("most", [0, 1, 3, 20])
def test_log_probabilities_are_those_of_the_likeliest_labels(most: int) -> None:
    ranked = [("b", math.log(0.625)), ("a", math.log(0.25)), ("c", math.log(0.125)), ("d", UNLIKELY)]
    found = logprobs(ANSWER, most)
    assert [label for label, _ in found] == [label for label, _ in ranked[:most]]
    assert [value for _, value in found] == pytest.approx([value for _, value in ranked[:most]], abs=1e-6)


def test_the_label_has_its_own_entry_where_none_is_listed() -> None:
    reply = chat_reply(ANSWER, "x", "chatcmpl-1", 5, "m", 0)
    entry = {"token": "b", "logprob": round(math.log(0.625), 6), "bytes": None, "top_logprobs": []}
    assert reply["choices"][0]["logprobs"] == {"content": [entry], "refusal": None}


def test_the_chosen_label_leads_where_rounding_made_two_equal() -> None:
    assert [label for label, _ in logprobs(Answer("b", {"a": 0.5, "b": 0.5}), 2)] == ["b", "a"]


@given(st.dictionaries(st.text(), st.floats(0, 1, allow_nan=False), min_size=1), st.integers(0, 20))
def test_every_probability_has_a_logarithm_that_json_can_hold(probabilities: dict[str, float], most: int) -> None:
    answer = Answer(max(probabilities, key=lambda label: probabilities[label]), probabilities)
    reply = chat_reply(answer, "x", "chatcmpl-1", 5, "m", most)
    assert json.loads(json.dumps(reply, allow_nan=False)) == reply
    found = [value for _, value in logprobs(answer, most)]
    assert found == sorted(found, reverse=True)
    assert all(UNLIKELY <= value <= 0 for value in found)


def test_an_error_has_four_keys_always() -> None:
    assert error_reply("input: empty", "invalid_value", None) == {
        "error": {"message": "input: empty", "type": "invalid_request_error", "param": None, "code": "invalid_value"}
    }
