"""Lines of requests -> rows -> lines of answers: every request ends in one file, once, in input order."""

from __future__ import annotations

import ast
import json
import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipelines
from pipelines.bulk.ledger import ERRORS
from pipelines.bulk.outputs import json_line
from pipelines.bulk.sources import open_source
from pipelines.errors import DataError
from service import batch_lines
from service.batch_lines import BatchRead, Counts, lines_path, read_batch, write_batch
from service.bodies import CHAT, CLASSIFY
from service.classified_rows import LABEL, SCORES
from service.refused import UploadRefused

Values = dict[str, Any]
LABELS = ("calm", "harsh", "ü\u2028")
UNREADABLE = "\u2620"  # a text with it gets no prediction
REASON = "no prediction: the tokenizer cannot read this text, or its logits are not numbers"


def request(custom_id: str, body: Values, endpoint: str = CLASSIFY) -> Values:
    return {"custom_id": custom_id, "method": "POST", "url": endpoint, "body": body}


def asked(texts: str | list[str], endpoint: str = CLASSIFY, **fields: Any) -> Values:
    if endpoint == CLASSIFY:
        return {"model": "m", "input": texts} | fields
    return {"model": "m", "messages": [{"role": "user", "content": texts}]} | fields


def batch_file(folder: Path, lines: list[Values | str]) -> Path:
    path = folder / "stored"
    text = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    path.write_text("".join(line + "\n" for line in text), encoding="utf-8")
    return path


def read(folder: Path, lines: list[Values | str], endpoint: str = CLASSIFY, **options: Any) -> BatchRead:
    return read_batch(batch_file(folder, lines), endpoint, folder / "rows.jsonl", **options)


def objects(path: Path) -> list[Values]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def scores(text: str) -> Values:
    """As `pipelines.bulk.predictions` gives them: every label, in order, six digits."""
    weights = [1 + sum(map(ord, text)) * (place + 3) % 7 for place in range(len(LABELS))]
    return {label: round(weight / sum(weights), 6) for label, weight in zip(LABELS, weights, strict=True)}


def label(text: str) -> str:
    found = scores(text)
    return max(found, key=lambda name: found[name])


def classify(rows: Path, done: Path) -> None:
    """What `pipelines.classify` writes with `--route model`; no row, no call."""
    reasons = []
    with done.open("w", encoding="utf-8") as file:
        for item in open_source(str(rows)).items() if rows.stat().st_size else ():
            assert item.values is not None
            found = scores(item.values["text"])
            best = label(item.values["text"])
            added: Values = {LABEL: best, "predicted_score": found[best], SCORES: found, "predicted_by_model": "m"}
            if UNREADABLE in item.values["text"]:
                reasons.append({"line": item.line, "reason": REASON})
                added = dict.fromkeys(added)
            file.write(json_line(item.values | added))
    if reasons:
        done.with_name(done.name + ERRORS).write_text("".join(map(json_line, reasons)), encoding="utf-8")


def written(folder: Path, endpoint: str = CLASSIFY) -> tuple[Counts, list[Values], list[Values]]:
    rows, done = folder / "rows.jsonl", folder / "done.jsonl"
    classify(rows, done)
    return written_again(folder, endpoint)


def written_again(folder: Path, endpoint: str = CLASSIFY) -> tuple[Counts, list[Values], list[Values]]:
    done, lines = folder / "done.jsonl", lines_path(folder / "rows.jsonl")
    counts = write_batch(done, lines, endpoint, folder / "out.jsonl", folder / "err.jsonl", "batch_1", 1_700_000_000)
    return counts, objects(folder / "out.jsonl"), objects(folder / "err.jsonl")


def own_lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def constant(module: str, name: str) -> Any:
    """A constant of a module that cannot be imported without torch."""
    tree = ast.parse((Path(pipelines.__file__).parent / module).read_text(encoding="utf-8"))
    found = [node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name]
    return ast.literal_eval(found[0])


def test_the_names_are_those_that_classify_gives() -> None:
    columns = constant("bulk/predictions.py", "COLUMNS")
    assert (columns[0], columns[2]) == (LABEL, SCORES)


# ---- in


def test_texts_become_rows_and_requests_entries(tmp_path: Path) -> None:
    found = read(tmp_path, [request("a", asked(["x", "ü"])), "", request("b", asked("y"))])
    assert found == BatchRead(2, 0, 3, {"m": 2}, [])
    assert objects(tmp_path / "rows.jsonl") == [
        {"line": 1, "part": 0, "model": "m", "text": "x"},
        {"line": 1, "part": 1, "model": "m", "text": "ü"},
        {"line": 3, "part": 0, "model": "m", "text": "y"},
    ]
    assert objects(tmp_path / "rows.lines.jsonl") == [
        {"line": 1, "custom_id": "a", "model": "m", "parts": 2, "error": None, "top_logprobs": None},
        {"line": 3, "custom_id": "b", "model": "m", "parts": 1, "error": None, "top_logprobs": None},
    ]
    assert json.loads(json.dumps(found.to_json())) == found.to_json()


def test_a_bad_body_is_the_fault_of_its_request_alone(tmp_path: Path) -> None:
    body = asked("x", CHAT, logprobs=True, top_logprobs=50)
    found = read(tmp_path, [request("a", body, CHAT), request("b", asked("y", CHAT, logprobs=True), CHAT)], CHAT)
    assert found == BatchRead(2, 1, 1, {"m": 1}, [])
    bad, good = objects(tmp_path / "rows.lines.jsonl")
    assert (good["parts"], good["top_logprobs"], good["error"]) == (1, 0, None)
    assert (bad["parts"], bad["top_logprobs"], bad["model"]) == (0, None, None)
    assert (bad["error"]["code"], bad["error"]["param"]) == ("invalid_value", "top_logprobs")


def test_models_are_translated_and_unknown_ones_refused(tmp_path: Path) -> None:
    lines: list[Values | str] = [
        request(str(i), asked("x", model=name)) for i, name in enumerate(("ft:a/b", "ft:a/b@c", "z"))
    ]
    found = read(tmp_path, lines, models={"ft:a/b": "m1", "ft:a/b@c": "m1"})
    assert (found.models, found.bad, found.rows) == ({"ft:a/b": 1, "ft:a/b@c": 1}, 1, 2)
    assert [row["model"] for row in objects(tmp_path / "rows.jsonl")] == ["m1", "m1"]
    _, good, bad = written(tmp_path)
    assert [line["response"]["body"]["model"] for line in good] == ["ft:a/b", "ft:a/b@c"]
    assert bad[0]["response"]["status_code"] == 404
    assert bad[0]["response"]["body"]["error"] == {
        "message": "model: 'z' does not exist or is not yours; GET /v1/models lists those that are",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


def test_the_names_of_models_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_lines, "MAX_MODELS", 2)
    lines: list[Values | str] = [request(str(i), asked("x", model=f"m{i % 3}")) for i in range(6)]
    found = read(tmp_path, lines)
    assert (found.models, found.bad) == ({"m0": 2, "m1": 2}, 2)


FRAME = request("a", asked("x"))


@pytest.mark.parametrize(
    ("line", "code", "message", "param"),
    [
        ("{", "invalid_json_line", "not valid JSON: Expecting property name enclosed in double quotes; ", None),
        ("[1]", "invalid_json_line", "expected a JSON object, found list", None),
        ('{"a": NaN}', "invalid_json_line", "NaN is not JSON; use null or a number", None),
        ("[" * 99_999, "invalid_json_line", "the JSON is nested too deeply; ", None),
        ('{"custom_id": "a", "custom_id": "b"}', "invalid_json_line", "the key 'custom_id' stands twice", None),
        ({}, "missing_required_parameter", "custom_id: missing; every request has one", "custom_id"),
        (FRAME | {"custom_id": ""}, "missing_required_parameter", "custom_id: missing; every request", "custom_id"),
        (FRAME | {"custom_id": 7}, "invalid_value", "custom_id: expected a string, found a number", "custom_id"),
        (FRAME | {"method": "GET"}, "invalid_value", "method: expected POST, found 'GET'", "method"),
        (FRAME | {"method": None}, "missing_required_parameter", "method: missing; every request has one", "method"),
        (
            FRAME | {"url": CHAT},
            "url_mismatch",
            "url: expected /v1/classify, the endpoint of the batch, found '/v1/chat/completions'",
            "url",
        ),
        (FRAME | {"body": None}, "missing_required_parameter", "body: missing; every request has one", "body"),
        (FRAME | {"body": [1]}, "invalid_value", "body: expected an object, found a list", "body"),
        (
            request("before", asked("x")),
            "duplicate_custom_id",
            "custom_id: 'before' stands twice; give every request its own",
            "custom_id",
        ),
    ],
)
def test_a_line_that_is_no_request_fails_the_batch(
    tmp_path: Path, line: Values | str, code: str, message: str, param: str | None
) -> None:
    found = read(tmp_path, [request("before", asked("x")), "", line, request("after", asked("x"))])
    (problem,) = found.problems
    assert (problem["code"], problem["param"], problem["line"]) == (code, param, 3)
    assert problem["message"].startswith(message)
    assert list(problem) == ["code", "message", "param", "line"]
    assert not list(tmp_path.glob("rows*"))


def test_problems_are_collected_up_to_a_limit(tmp_path: Path) -> None:
    lines: list[Values | str] = [request("a", asked("x")) if i % 2 else "{" for i in range(500)]
    assert [one["line"] for one in read(tmp_path, lines, limit_problems=4).problems] == [1, 3, 4, 5]
    assert len(read(tmp_path, lines).problems) == 100


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file_fails(tmp_path: Path, content: str) -> None:
    (tmp_path / "stored").write_text(content)
    (problem,) = read_batch(tmp_path / "stored", CLASSIFY, tmp_path / "rows.jsonl").problems
    assert (problem["code"], problem["line"]) == ("empty_file", None)


def test_a_file_of_another_encoding_fails(tmp_path: Path) -> None:
    (tmp_path / "stored").write_bytes(json.dumps(FRAME).encode("utf-16"))
    (problem,) = read_batch(tmp_path / "stored", CLASSIFY, tmp_path / "rows.jsonl").problems
    assert problem["code"] == "invalid_file"
    assert (
        problem["message"] == "the batch file, line 1, column 1: expected UTF-8, found UTF-16; save the file as UTF-8"
    )


def test_too_many_requests_fail(tmp_path: Path) -> None:
    lines: list[Values | str] = [request(str(i), asked("x")) for i in range(4)]
    assert read(tmp_path, lines, limit_lines=4).problems == []
    (problem,) = read(tmp_path, lines, limit_lines=3).problems
    assert problem == {
        "code": "too_many_tasks",
        "message": "more than 3 requests; split the file",
        "param": None,
        "line": 4,
    }


def test_an_endpoint_that_no_batch_has(tmp_path: Path) -> None:
    with pytest.raises(UploadRefused, match="endpoint: expected /v1/classify or /v1/chat/completions, found '/v1/x'"):
        read(tmp_path, [FRAME], "/v1/x")


# ---- out


def test_an_answer_of_classify(tmp_path: Path) -> None:
    read(tmp_path, [request("a", asked(["one", "two words"]))])
    counts, (line,), bad = written(tmp_path)
    assert (counts, bad) == (Counts(1, 1, 0), [])
    body = line["response"].pop("body")
    ids = [line.pop("id"), line["response"].pop("request_id"), body.pop("id")]
    assert [name.rpartition("_")[0] or name.partition("-")[0] for name in ids] == ["batch_req", "req", "classify"]
    assert line == {"custom_id": "a", "response": {"status_code": 200}, "error": None}
    assert body == {
        "object": "list",
        "created": 1_700_000_000,
        "model": "m",
        "data": [
            {"index": i, "label": label(text), "probs": list(scores(text).values()), "num_classes": 3}
            for i, text in enumerate(("one", "two words"))
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3, "prompt_tokens_details": None},
    }


@pytest.mark.parametrize(("fields", "listed"), [({}, None), ({"logprobs": True, "top_logprobs": 2}, 2)])
def test_an_answer_of_chat(tmp_path: Path, fields: Values, listed: int | None) -> None:
    read(tmp_path, [request("a", asked("one", CHAT, temperature=0, max_tokens=1, **fields), CHAT)], CHAT)
    _, (line,), _ = written(tmp_path, CHAT)
    (choice,) = line["response"]["body"]["choices"]
    assert choice["message"]["content"] == label("one")
    assert (choice["logprobs"] is None) == (listed is None)
    if listed:
        (entry,) = choice["logprobs"]["content"]
        assert [math.exp(one["logprob"]) for one in entry["top_logprobs"]] == pytest.approx(
            sorted(scores("one").values(), reverse=True)[:listed], abs=1e-5
        )


def test_a_text_without_prediction_fails_its_request_alone(tmp_path: Path) -> None:
    read(tmp_path, [request("a", asked(["x", UNREADABLE])), request("b", asked(UNREADABLE)), request("c", asked("x"))])
    counts, good, bad = written(tmp_path)
    assert counts == Counts(3, 1, 2)
    assert [line["custom_id"] for line in good] == ["c"]
    assert [line["error"] for line in bad] == [None, None]
    assert [line["response"]["status_code"] for line in bad] == [400, 400]
    assert [line["response"]["body"]["error"] for line in bad] == [
        {"message": f"{place}: {REASON}", "type": "invalid_request_error", "param": place, "code": "invalid_text"}
        for place in ("input[1]", "input")
    ]


def test_a_row_that_the_output_lacks_fails_its_request_where_a_reason_is_given(tmp_path: Path) -> None:
    read(tmp_path, [request(str(i), asked("x")) for i in range(3)])
    classify(tmp_path / "rows.jsonl", tmp_path / "done.jsonl")
    rows = own_lines(tmp_path / "done.jsonl")
    (tmp_path / "done.jsonl").write_bytes(rows[0] + rows[2])
    (tmp_path / f"done.jsonl{ERRORS}").write_text('{"line": 2, "reason": "cannot be read"}\n', encoding="utf-8")
    counts, good, bad = written_again(tmp_path)
    assert (counts, [line["custom_id"] for line in good]) == (Counts(3, 2, 1), ["0", "2"])
    assert bad[0]["response"]["body"]["error"]["message"] == "input: cannot be read"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], "expected text 1 of line 2, found the end"),
        (lambda rows: rows[1:], "expected text 0 of line 1, found text 0 of line 2"),
        (lambda rows: rows + rows[-1:], "expected no more rows, found text 1 of line 2"),
        (lambda rows: [rows[0], *rows], "expected text 0 of line 2, found text 0 of line 1"),
        (lambda rows: [*rows[:-2], *rows[:-3:-1]], "expected text 0 of line 2, found text 1 of line 2"),
        (lambda _: [], "expected text 0 of line 1, found the end"),
    ],
)
def test_rows_that_are_not_those_of_the_batch(
    tmp_path: Path, change: Callable[[list[bytes]], list[bytes]], message: str
) -> None:
    read(tmp_path, [request("a", asked("x")), request("b", asked(["y", "z"]))])
    done = tmp_path / "done.jsonl"
    classify(tmp_path / "rows.jsonl", done)
    done.write_bytes(b"".join(change(own_lines(done))))
    with pytest.raises(DataError) as caught:
        written_again(tmp_path)
    assert str(caught.value) == f"{done}: {message}; classify the rows of this batch again"
    assert not (tmp_path / "out.jsonl").exists()
    assert not (tmp_path / "err.jsonl").exists()


def test_a_batch_of_bad_bodies_needs_no_classification(tmp_path: Path) -> None:
    assert read(tmp_path, [request("a", {}), request("b", asked(""))]).rows == 0
    counts, good, bad = written_again(tmp_path)
    assert (counts, good) == (Counts(2, 0, 2), [])
    assert [line["custom_id"] for line in bad] == ["a", "b"]


# ---- both ways

TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from([UNREADABLE, "\u2028", "\x85", "\r"]))
GOOD_TEXT = TEXT.filter(str.strip)
GOOD = st.one_of(GOOD_TEXT, st.lists(GOOD_TEXT, min_size=1, max_size=4)).map(asked)
BAD = st.sampled_from([{}, {"model": ""}, {"model": "m"}, asked(""), asked(["x", " "]), asked([]), asked("x", k=1)])
LINES = st.lists(st.one_of(st.none(), GOOD, GOOD, BAD), max_size=12)
IDS = st.lists(TEXT.filter(bool), min_size=12, max_size=12, unique=True)


@given(LINES, IDS)
@settings(deadline=None)
def test_every_request_ends_in_one_file_once(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[Values | None], ids: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("batch")
    lines = [" " if body is None else request(name, body) for name, body in zip(ids, bodies, strict=False)]
    requests = [line for line in lines if isinstance(line, dict)]
    found = read(folder, list(lines))
    if not requests:
        assert [problem["code"] for problem in found.problems] == ["empty_file"]
        return
    counts, good, bad = written(folder)
    answered = {line["custom_id"]: line["response"]["body"]["data"] for line in good}
    expected = {}
    for one in requests:
        texts = one["body"].get("input")
        texts = [texts] if isinstance(texts, str) else texts
        if texts and all(text.strip() and UNREADABLE not in text for text in texts) and "k" not in one["body"]:
            expected[one["custom_id"]] = [label(text) for text in texts]
    assert {name: [item["label"] for item in data] for name, data in answered.items()} == expected
    assert list(answered) == list(expected)
    failed = [one["custom_id"] for one in requests if one["custom_id"] not in expected]
    assert [line["custom_id"] for line in bad] == failed
    assert counts == Counts(len(requests), len(good), len(bad))
    assert found.requests == counts.total
    assert len({line["id"] for line in good + bad}) == len(requests)


@given(st.lists(st.sampled_from(["good", "blank", "json", "again", "frame"]), min_size=1, max_size=12))
@settings(deadline=None)
def test_every_malformed_line_is_named(tmp_path_factory: pytest.TempPathFactory, kinds: list[str]) -> None:
    folder = tmp_path_factory.mktemp("batch")
    made: dict[str, Callable[[int], Values | str]] = {
        "good": lambda i: request(f"id {i}", asked("x")),
        "blank": lambda _: "\t",
        "json": lambda _: "{]",
        "again": lambda _: request("first", asked("x")),
        "frame": lambda i: request(f"id {i}", asked("x")) | {"url": "/v1/embeddings"},
    }
    lines = [request("first", asked("x")), *(made[kind](i) for i, kind in enumerate(kinds))]
    found = read(folder, lines)
    broken = [i for i, kind in enumerate(kinds, start=2) if kind not in ("good", "blank")]
    assert [problem["line"] for problem in found.problems] == broken
    assert (folder / "rows.jsonl").exists() == (not broken)


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    read(tmp_path, [request("a", asked(["x", "ü"])), request("b", {}), request("c", asked(UNREADABLE))])
    written(tmp_path)
    names = ("out.jsonl", "err.jsonl")
    first = [(tmp_path / name).read_bytes() for name in names]
    written_again(tmp_path)
    assert [(tmp_path / name).read_bytes() for name in names] == first


def test_memory_grows_by_digests_only(tmp_path: Path) -> None:
    reading, writing = [], []
    rows, done = tmp_path / "rows.jsonl", tmp_path / "done.jsonl"
    for count in (1_000, 5_000):
        source = batch_file(tmp_path, [request(f"{i:0200}", asked("x" * 500)) for i in range(count)])
        reading.append(peak(read_batch, source, CLASSIFY, rows))
        classify(rows, done)
        made = (tmp_path / "out.jsonl", tmp_path / "err.jsonl")
        writing.append(peak(write_batch, done, lines_path(rows), CLASSIFY, *made, "batch_1", 1))
    assert reading[1] < reading[0] + 4_000 * 250  # a request has 800 bytes
    assert writing[1] < writing[0] + 100_000


def peak(call: Callable[..., object], *arguments: object) -> int:
    """Bytes of Python objects at most."""
    tracemalloc.start()
    call(*arguments)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found
