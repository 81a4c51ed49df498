"""A batch in OpenAI's format: its lines -> rows for `pipelines.classify`, and what that gives -> lines of two files.

Both ways are streams in input order. Every request of a good file ends as one line of the output or of the errors; a
file with a line that is no request is refused whole.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

from service.batch_requests import Request, batch_requests
from service.bodies import CLASSIFY, ENDPOINTS, Asked, read_body
from service.classified_rows import LABEL, SCORES, ClassifiedRows, objects
from service.refused import INVALID_VALUE, UploadRefused
from service.replies import Answer, chat_reply, classify_reply, error_reply

Values = dict[str, Any]
MAX_MODELS = 1000  # different ones in a batch, whose names are counted in memory
_MODEL_NOT_FOUND = "model_not_found"
_INVALID_TEXT = "invalid_text"  # as of a live request


@dataclass(frozen=True)
class BatchRead:
    """What a batch file holds.

    Attributes:
        requests: lines that are not blank.
        bad: of them, those whose body is refused; they get no rows.
        rows: texts to classify; none at all is possible.
        models: requests for each model, as they call it; of good ones.
        problems: {code, message, param, line} each. If there are any the batch fails: no file is left and nothing
            is counted.
    """

    requests: int
    bad: int
    rows: int
    models: dict[str, int]
    problems: list[Values]

    def to_json(self) -> Values:
        return asdict(self)


@dataclass(frozen=True)
class Counts:
    """Requests of a finished batch, as its `request_counts`."""

    total: int
    completed: int
    failed: int


def lines_path(rows: Path) -> Path:
    """The side file of a rows file: what `write_batch` has to know of every request."""
    return rows.with_suffix(".lines.jsonl")


# ---- in


def read_batch(
    source: Path,
    endpoint: str,
    rows: Path,
    limit_lines: int = 1_000_000,
    limit_problems: int = 100,
    models: Mapping[str, str] | None = None,
) -> BatchRead:
    """Read an uploaded batch.

    Args:
        source: the stored upload, JSONL.
        endpoint: of the batch, one of ENDPOINTS.
        rows: a new JSONL file with {line, part, model, text} for every text, and `lines_path(rows)` beside it with
            {line, custom_id, model, parts, error, top_logprobs} for every request.
        limit_lines: requests.
        limit_problems: reading ends with so many.
        models: what a request may call a model -> the name of its run directory, which the rows then hold. Without
            it any name is taken and the rows hold that.

    Raises:
        UploadRefused: an endpoint that no batch can have.
    """
    if endpoint not in ENDPOINTS:
        found = f"expected {' or '.join(ENDPOINTS)}, found {endpoint!r}"
        raise UploadRefused(f"endpoint: {found}", INVALID_VALUE, "endpoint")
    problems: list[Values] = []
    with _new(rows) as texts, _new(lines_path(rows)) as entries:
        writer = _Rows(texts, entries, endpoint, models)
        for request in batch_requests(source, endpoint, limit_lines):
            if isinstance(request, Request):
                writer.add(request)
                continue
            problems.append(_fault(request) | {"line": request.line})
            if len(problems) == limit_problems:
                break
    if problems:
        rows.unlink()
        lines_path(rows).unlink()
        return BatchRead(0, 0, 0, {}, problems)
    return BatchRead(writer.requests, writer.bad, writer.rows, dict(writer.models), [])


def _fault(error: UploadRefused) -> Values:
    return {"code": error.code, "message": error.message, "param": error.param}


class _Rows:
    """The two files that are made of good requests and of those with a bad body, and what is counted of them."""

    def __init__(self, texts: IO[str], entries: IO[str], endpoint: str, models: Mapping[str, str] | None) -> None:
        self._texts = texts
        self._entries = entries
        self._endpoint = endpoint
        self._known = models
        self.requests = self.bad = self.rows = 0
        self.models: Counter[str] = Counter()

    def add(self, request: Request) -> None:
        self.requests += 1
        entry: Values = {"line": request.line, "custom_id": request.custom_id, "model": None}
        try:
            asked = read_body(self._endpoint, request.body)
            route = self._route(asked.model)
        except UploadRefused as error:
            self.bad += 1
            self._entries.write(_line(entry | {"parts": 0, "error": _fault(error), "top_logprobs": None}))
            return
        self._add_texts(request.line, asked, route)
        entry |= {"model": asked.model, "parts": len(asked.texts), "error": None, "top_logprobs": asked.top_logprobs}
        self._entries.write(_line(entry))

    def _add_texts(self, line: int, asked: Asked, route: str) -> None:
        self.models[asked.model] += 1
        self.rows += len(asked.texts)
        for part, text in enumerate(asked.texts):
            self._texts.write(_line({"line": line, "part": part, "model": route, "text": text}))

    def _route(self, model: str) -> str:
        if self._known is not None and model not in self._known:
            problem = f"model: {model!r} does not exist or is not yours; GET /v1/models lists those that are"
            raise UploadRefused(problem, _MODEL_NOT_FOUND, "model")
        if model not in self.models and len(self.models) == MAX_MODELS:
            problem = f"model: more than {MAX_MODELS:,} different ones in one batch; split the file"
            raise UploadRefused(problem, INVALID_VALUE, "model")
        return model if self._known is None else self._known[model]


# ---- out


def write_batch(
    rows_done: Path, lines: Path, endpoint: str, output: Path, errors: Path, batch_id: str, created: int
) -> Counts:
    """Write the two files of a finished batch. The same arguments and files give the same bytes.

    Args:
        rows_done: what `pipelines.classify` made of the rows file, as JSONL, with its errors beside it. It may be
            missing where there was no row.
        lines: the side file of the rows file.
        endpoint: of the batch.
        output: a new file: requests that were answered, in input order.
        errors: a new file: the others, in input order.
        batch_id: from which all ids follow.
        created: Unix seconds, for the replies.

    Raises:
        DataError: `rows_done` is not of this batch, or not whole. No file is left then.
    """
    done, completed, failed = ClassifiedRows(rows_done), 0, 0
    with _new(output) as good, _new(errors) as bad:
        for entry in objects(lines):
            rows, unpredicted = done.take(entry["line"], entry["parts"])
            fault = entry["error"] or (unpredicted and _unpredicted(*unpredicted, endpoint, entry))
            head: Values = {"id": _id("batch_req_", batch_id, entry["line"]), "custom_id": entry["custom_id"]}
            response: Values = {"status_code": 200, "request_id": _id("req_", batch_id, entry["line"])}
            if fault is None:
                body = _reply(endpoint, entry, rows, batch_id, created)
                completed += 1
            else:
                response["status_code"] = 404 if fault["code"] == _MODEL_NOT_FOUND else 400
                body = error_reply(**fault)
                failed += 1
            # OpenAI's own shape of a request that was refused; `error` is for those that had no reply at all.
            line = head | {"response": response | {"body": body}, "error": None}
            (good if fault is None else bad).write(_line(line))
        done.close()
    return Counts(completed + failed, completed, failed)


def _unpredicted(part: int, reason: str, endpoint: str, entry: Values) -> Values:
    param = "messages" if endpoint != CLASSIFY else "input" if entry["parts"] == 1 else f"input[{part}]"
    return {"code": _INVALID_TEXT, "message": f"{param}: {reason}", "param": param}


def _reply(endpoint: str, entry: Values, rows: Sequence[Values], batch_id: str, created: int) -> Values:
    answers, texts = [Answer(row[LABEL], row[SCORES]) for row in rows], [row["text"] for row in rows]
    line, model = entry["line"], entry["model"]
    if endpoint == CLASSIFY:
        return classify_reply(answers, texts, _id("classify-", batch_id, line), created, model)
    reply_id = _id("chatcmpl-", batch_id, line)
    return chat_reply(answers[0], texts[0], reply_id, created, model, entry["top_logprobs"])


def _id(kind: str, batch_id: str, line: int) -> str:
    return kind + blake2b(f"{kind}\0{batch_id}\0{line}".encode(), digest_size=12).hexdigest()


def _line(value: Values) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"


@contextmanager
def _new(path: Path) -> Iterator[IO[str]]:
    """A new text file, which is gone again where writing it fails."""
    try:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise
