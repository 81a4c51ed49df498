"""Response bodies of the two endpoints that classify, and of an error: the same for a live request and for a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

UNLIKELY = -9999.0  # OpenAI's logarithm of a probability that is too small; JSON has no infinity
_DIGITS = 6  # of a logarithm


@dataclass(frozen=True)
class Answer:
    """What a model says of one text.

    Attributes:
        label: that it chose.
        probabilities: of every label, in the order of the job's `labels`.
    """

    label: str
    probabilities: Mapping[str, float]


def classify_reply(
    answers: Sequence[Answer], texts: Sequence[str], reply_id: str, created: int, model: str
) -> dict[str, Any]:
    """Body of `/v1/classify`, in the shape of vLLM and SGLang.

    Args:
        answers: one for each text.
        texts: that were classified, for `usage`.
        reply_id: `classify-...`.
        created: Unix seconds.
        model: as the request calls it.
    """
    return {
        "id": reply_id,
        "object": "list",
        "created": created,
        "model": model,
        "data": [
            {
                "index": index,
                "label": answer.label,
                "probs": list(answer.probabilities.values()),
                "num_classes": len(answer.probabilities),
            }
            for index, answer in enumerate(answers)
        ],
        "usage": _usage(texts, 0) | {"prompt_tokens_details": None},
    }


def chat_reply(
    answer: Answer, text: str, reply_id: str, created: int, model: str, top_logprobs: int | None = None
) -> dict[str, Any]:
    """Body of `/v1/chat/completions`: the message is the label.

    Args:
        answer: to the one text.
        text: that was classified, for `usage`.
        reply_id: `chatcmpl-...`.
        created: Unix seconds.
        model: as the request calls it.
        top_logprobs: how many labels to list, the likeliest first; None where the request did not set `logprobs`.
    """
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": answer.label, "refusal": None},
        "logprobs": None if top_logprobs is None else _logprobs(answer, top_logprobs),
        "finish_reason": "stop",
    }
    return {
        "id": reply_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [choice],
        "usage": _usage([text], 1),
        "system_fingerprint": None,
    }


def error_reply(message: str, code: str, param: str | None, kind: str = "invalid_request_error") -> dict[str, Any]:
    """Body of an error, all four keys always."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _logprobs(answer: Answer, most: int) -> dict[str, Any]:
    # The chosen label leads even where rounding has made two probabilities equal.
    ranked = sorted(answer.probabilities, key=lambda label: (label != answer.label, -answer.probabilities[label]))
    entries = [_entry(label, answer.probabilities[label]) for label in ranked[: max(1, most)]]
    return {"content": [entries[0] | {"top_logprobs": entries[:most]}], "refusal": None}


def _entry(label: str, probability: float) -> dict[str, Any]:
    logprob = round(min(0.0, math.log(probability)), _DIGITS) if probability > 0 else UNLIKELY
    return {"token": label, "logprob": logprob, "bytes": None}


def _usage(texts: Sequence[str], completion_tokens: int) -> dict[str, Any]:
    """Words instead of tokens: every model has tokens of its own, and nothing is charged by them."""
    prompt_tokens = sum(len(text.split()) for text in texts)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
