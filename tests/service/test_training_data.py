"""Uploads -> examples that `pipelines` reads, with what was understood; and what is no classification data."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import DataConfig
from pipelines.data import read_items
from pipelines.records import column
from pipelines.tables import read_table
from service import training_data
from service.refused import UploadRefused
from service.training_data import MAX_LABEL_CHARACTERS, Understood, prepare
from tests.written import write_table

Rows = list[dict[str, Any]]
ROOT = Path(__file__).parents[2]
LABELS = ("safe", "toxic", "spam")
MODULES = ("training_data", "batch_lines", "replies", "bodies")


def chat(text: str, label: str) -> dict[str, Any]:
    turns = [("system", "Say whether this is safe."), ("user", text), ("assistant", label)]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def jsonl(folder: Path, rows: Rows) -> Path:
    path = folder / "stored"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def prepared(folder: Path, rows: Rows, filename: str = "upload", **mapping: Any) -> tuple[Understood, Rows]:
    understood = prepare(jsonl(folder, rows), filename, mapping, folder / "examples.jsonl")
    return understood, written(folder)


def written(folder: Path) -> Rows:
    return [json.loads(line) for line in (folder / "examples.jsonl").read_text(encoding="utf-8").splitlines()]


def refusal(folder: Path, source: Path, filename: str = "a.jsonl", **options: Any) -> UploadRefused:
    with pytest.raises(UploadRefused) as caught:
        prepare(source, filename, options.pop("mapping", {}), folder / "examples.jsonl", **options)
    assert not (folder / "examples.jsonl").exists()
    return caught.value


# ---- the same examples from every form and format

EXAMPLES = [{"text": f'number {i}, "so"\tto say\nü', "label": LABELS[(i % 10) // 6]} for i in range(20)]


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("chat", lambda text, label: chat(text, f" {label}\n")),
        ("prompt_completion", lambda text, label: {"prompt": text, "completion": f" {label}"}),
        ("text_label", lambda text, label: {"label": label, "text": text}),
        ("inputs_label", lambda text, label: {"inputs": text, "label": label}),
        ("table", lambda text, label: {"tweet": text, "class": label}),
    ],
)
def test_every_form_gives_the_same_examples(
    tmp_path: Path, form: str, row: Callable[[str, str], dict[str, Any]]
) -> None:
    understood, examples = prepared(tmp_path, [row(one["text"], one["label"]) for one in EXAMPLES])
    assert examples == EXAMPLES
    assert (understood.form, understood.format, understood.rows) == (form, "jsonl", 20)
    assert list(understood.labels.items()) == [("safe", 12), ("toxic", 8)]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "csv.gz", "parquet"])
def test_every_format_gives_the_same_examples(tmp_path: Path, suffix: str) -> None:
    rows = [{"tweet": one["text"], "kind": "k", "class": one["label"], "n": str(i)} for i, one in enumerate(EXAMPLES)]
    table = write_table(tmp_path / f"a.{suffix}", list(rows[0]), rows).rename(tmp_path / "stored")
    mapping = {"text": "tweet", "label": "class", "id": "n", "group": "kind", "slices": ["kind"]}
    understood = prepare(table, f"a.{suffix}", mapping, tmp_path / "examples.jsonl")
    beside = [{"id": str(i), "group": "k", "kind": "k"} for i in range(20)]
    assert written(tmp_path) == [one | other for one, other in zip(EXAMPLES, beside, strict=True)]
    assert (understood.mapping, understood.guessed) == (mapping, ())


def test_pipelines_read_what_is_written(tmp_path: Path) -> None:
    rows = [one | {"key": i // 2, "kind": True} for i, one in enumerate(EXAMPLES)]
    understood, _ = prepared(tmp_path, rows, id="key", group="key", slices=["kind"])
    config = DataConfig.model_validate(understood.section(tmp_path / "examples.jsonl"))
    items = read_items(config.train, config)
    assert [column(items, name) for name in ("text", "label")] == [[row[n] for row in rows] for n in ("text", "label")]
    assert column(items, "id") == column(items, "group") == [str(i // 2) for i in range(20)]
    assert column(items, "kind") == ["true"] * 20


TEXTS = st.text(min_size=1).filter(str.strip)


@given(st.lists(st.tuples(TEXTS, st.sampled_from(["a", " b ", "ü\u2028x"])), min_size=1, max_size=30))
@settings(deadline=None)
def test_no_example_is_lost_or_changed(tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]) -> None:
    folder = tmp_path_factory.mktemp("any")
    understood = prepare(
        jsonl(folder, [{"text": text, "label": label} for text, label in pairs]),
        "a.jsonl",
        {},
        folder / "examples.jsonl",
        training=False,
    )
    found = [(row.values["text"], row.values["label"]) for row in read_table(folder / "examples.jsonl").rows]
    assert found == pairs
    assert understood.rows == len(pairs) == sum(understood.labels.values())


# ---- what it says


@pytest.mark.parametrize(
    ("rows", "mapping", "sentence"),
    [
        (
            [chat("x", LABELS[min(i % 5, 2)]) for i in range(2000)],
            {},
            "2,000 rows of chat JSONL; text = last user message, label = assistant message; 3 classes: "
            "spam 1,200, safe 400, toxic 400",
        ),
        (
            [{"tweet": "x", "class": f"c{i % 7}"} for i in range(70)],
            {},
            "70 rows of JSONL; text = column 'tweet', label = column 'class' (text and label guessed from the names "
            "of the columns); 7 classes: c0 10, c1 10, c2 10, c3 10, c4 10 and 2 more",
        ),
        (
            [{"tweet": "x", "class": "a\x1b[0m" if i else "b"} for i in range(3)],
            {"label": "class", "text": "tweet"},
            r"3 rows of JSONL; text = column 'tweet', label = column 'class'; 2 classes: 'a\x1b[0m' 2, b 1",
        ),
    ],
)
def test_a_sentence_for_people(tmp_path: Path, rows: Rows, mapping: dict[str, Any], sentence: str) -> None:
    understood, _ = prepared(tmp_path, rows, **mapping)
    assert understood.sentence == sentence
    assert json.loads(json.dumps(understood.to_json())) == understood.to_json()
    keys = ["form", "format", "mapping", "guessed", "rows", "labels", "sentence", "examples", "columns"]
    assert list(understood.to_json()) == keys


# ---- refusals


GOOD = '{"text": "x", "label": "a"}\n'


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (GOOD + '\n{"text": \n', 3, "not valid JSON: Expecting value; expected one object per line"),
        ('{"text": "x", "label": NaN}', 1, "NaN is not JSON; use null or a number"),
        ('{"text": "x", "label": -Infinity}', 1, "-Infinity is not JSON; use null or a number"),
        ('{"text": "x", "label": 1e999}', 1, "column 'label': expected a label, found a number that is too large"),
        ('{"text": "x", "text": "y", "label": "a"}', 1, "the key 'text' stands twice in one object"),
        ('{"text": ' + "[" * 9999, 1, "the JSON is nested too deeply; expected one flat object per line"),
        (b'{"text": "\xe9"}', 1, "expected UTF-8 text, found the byte 0xe9; save the file as UTF-8"),
        (GOOD + '{"text": "", "label": "a"}', 2, "column 'text': the text is empty; fill it or leave it out"),
        (GOOD + '{"text": "x"}', 2, "column 'label': the label is empty; fill it or remove the row"),
        ('{"messages": []}', 1, "messages: expected a list of messages, found an empty list"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, content: str | bytes, line: int, message: str) -> None:
    source = tmp_path / "stored"
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    error = refusal(tmp_path, source, "/home/me/a.jsonl")
    assert (error.code, error.param, error.line) == ("invalid_training_file", "training_file", line)
    where = error.message.removesuffix(message)
    assert where.startswith(f"a.jsonl, line {line}")
    assert len(where) < 40


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.csv: the file is empty; expected one example per line"),
        (b"text,label\n", "a.csv: expected rows below the header, found none; add rows"),
        (
            b"text,label\nx,a\ny,a\n",
            "a.csv: expected at least two classes, found only a; add rows of another class or name another label "
            "column in data.label",
        ),
        (
            b"text;label\nx;a\n",
            "a.csv: data.label: name the column that holds the label; columns found: 'text;label'",
        ),
        (
            b'text,label\n"x,a\n',
            "a.csv, line 2: not a valid record: a quote is opened and never closed; close it, or double it if it "
            "belongs to the text",
        ),
        (
            b"text,label\nx,a,b\n",
            "a.csv, line 2: expected 2 fields as in the header, found 3; put quotes around text that holds the "
            "separator",
        ),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    source = tmp_path / "stored"
    source.write_bytes(content)
    error = refusal(tmp_path, source, "a.csv")
    assert (error.message, error.code) == (message, "invalid_training_file")


def test_a_missing_column_is_that_of_the_request(tmp_path: Path) -> None:
    error = refusal(tmp_path, jsonl(tmp_path, EXAMPLES), mapping={"label": "lable"})
    assert (error.code, error.param) == ("invalid_training_file", "data.label")
    assert error.message == (
        "a.jsonl: data.label: no column 'lable'; columns found: 'text', 'label'. Did you mean 'label'?"
    )


def test_a_bad_value_of_parquet_has_its_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x", "y"], "label": ["a", None]}), tmp_path / "stored")
    error = refusal(tmp_path, tmp_path / "stored", "a.parquet")
    assert error.message == "a.parquet, row 2: column 'label': the label is empty; fill it or remove the row"
    assert error.line == 2


def test_what_becomes_too_large_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_data, "MOST_BYTES", 500)
    assert refusal(tmp_path, jsonl(tmp_path, EXAMPLES)).code == "file_too_large"


@pytest.mark.parametrize("count", [2, 40])
def test_a_validation_file_may_be_small(tmp_path: Path, count: int) -> None:
    """One row of every class, or one class."""
    every = jsonl(tmp_path, [{"text": f"x{i}", "label": f"c{i}"} for i in range(count)])
    prepare(every, "a.jsonl", {}, tmp_path / "examples.jsonl", training=False)
    prepare(jsonl(tmp_path, EXAMPLES[:3]), "a.jsonl", {}, tmp_path / "examples.jsonl", training=False)
    (tmp_path / "examples.jsonl").unlink()
    broken = jsonl(tmp_path, [{"text": "", "label": "a"}])
    assert refusal(tmp_path, broken, training=False).param == "validation_file"


ANY = st.binary(max_size=200) | st.text(max_size=200).map(str.encode)
STARTS = (
    b"",
    b"PAR1",
    b"\x1f\x8b",
    b'{"text": "x", "label": "a"}\n',
    b'text,label\n"x",a\n',
    b"text\tlabel\n",
    b'{"messages": [',
)


@given(st.sampled_from(STARTS), ANY, st.sampled_from(["", "a.csv", "a.tsv", "a.jsonl", "a.jsonl.gz"]), st.booleans())
@settings(deadline=None, max_examples=60)
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, start: bytes, content: bytes, filename: str, packed: bool
) -> None:
    folder = tmp_path_factory.mktemp("any")
    source = folder / "stored"
    source.write_bytes(gzip.compress(start + content, mtime=0) if packed else start + content)
    problem: UploadRefused | None = None
    try:
        prepare(source, filename, {}, folder / "examples.jsonl", training=False)
    except UploadRefused as error:
        problem = error
    assert (folder / "examples.jsonl").exists() == (problem is None)
    assert problem is None or (problem.param and str(folder) not in problem.message)


# ---- generation data


def sentence(seed: int, words: int = 12) -> str:
    return " ".join(random.Random(seed).choices(["lorem", "ipsum", "dolor", "sit", "amet", "nulla"], k=words))


@pytest.mark.parametrize(
    ("label", "found"),
    [
        (lambda i: sentence(i, 60), ", line 1: the label has 327 characters, a class name at most 128"),
        (lambda i: sentence(i), ": 200 different labels in 200 rows, fewer than two rows for each"),
        (lambda i: f"answer {i // 1.9:.0f}", ": 105 different labels in 200 rows, fewer than two rows for each"),
    ],
)
def test_answers_instead_of_classes_are_refused(tmp_path: Path, label: Callable[[int], str], found: str) -> None:
    error = refusal(tmp_path, jsonl(tmp_path, [chat(f"question {i}", label(i)) for i in range(200)]))
    assert (error.code, error.param) == ("not_classification_data", "training_file")
    assert error.message.startswith(
        f"a.jsonl{found}; this looks like data for generating text, and only classification is trained here; name a "
        "column of classes in data.label, or shorten the answers to class names"
    )


def test_half_as_many_labels_as_rows_may_be_classes(tmp_path: Path) -> None:
    understood, _ = prepared(tmp_path, [chat(f"question {i}", f"answer {i // 2}") for i in range(200)])
    assert len(understood.labels) == 100


def test_more_labels_than_a_report_can_show_are_refused_at_once(tmp_path: Path) -> None:
    rows = [{"text": f"x{i}", "label": f"c{i % 1500}"} for i in range(6000)]
    error = refusal(tmp_path, jsonl(tmp_path, rows))
    assert error.message.startswith("a.jsonl, line 1001: more than 1,000 different labels in 1,001 rows; this looks")
    assert (error.code, error.line) == ("not_classification_data", 1001)


def test_few_rows_say_nothing_yet(tmp_path: Path) -> None:
    understood, _ = prepared(tmp_path, [{"text": f"x{i}", "label": f"c{i}"} for i in range(12)])
    assert len(understood.labels) == 12


SETS = {
    "banking77": ("banking77/train.csv.gz", "text", "category", 77),
    "edos": ("edos/edos_labelled_aggregated.csv.gz", "text", "label_vector", 12),
    "edos_sexist": ("edos/edos_labelled_aggregated.csv.gz", "text", "label_sexist", 2),
    "davidson": ("davidson/labeled_data.csv.gz", "tweet", "class", 3),
    "crisislex": ("crisislex_t6/2012_Sandy_Hurricane.csv.gz", "text", "label", 2),
}


@pytest.mark.parametrize("name", SETS)
def test_real_sets_are_classification_data(tmp_path: Path, shared_data: Path, name: str) -> None:
    file, text, label, classes = SETS[name]
    understood = prepare(shared_data / file, Path(file).name, {"text": text, "label": label}, tmp_path / "e.jsonl")
    assert (understood.format, len(understood.labels)) == ("csv", classes)
    assert 2 * max(map(len, understood.labels)) <= MAX_LABEL_CHARACTERS
    rows = [row.values for row in read_table(shared_data / file).rows]
    assert understood.rows == len(rows)
    for seed in range(5):
        some = random.Random(seed).sample(rows, 500)
        prepare(jsonl(tmp_path, some), "a.jsonl", {"text": text, "label": label}, tmp_path / "e.jsonl")


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("most", [MAX_LABEL_CHARACTERS, 40])
def test_their_texts_as_labels_are_not(tmp_path: Path, shared_data: Path, name: str, most: int) -> None:
    """Also where every text is short, so that the share of distinct labels alone can tell."""
    file, text, *_ = SETS[name]
    texts = [row.values[text][:most] for row in read_table(shared_data / file).rows]
    some = random.Random(0).sample(sorted(filter(str.strip, texts)), 500)
    source = jsonl(tmp_path, [chat(one, one) for one in some])
    assert refusal(tmp_path, source).code == "not_classification_data"


# ---- what it costs


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peaks = []
    for count in (2_000, 20_000):
        rows = (json.dumps(chat(sentence(i % 97), LABELS[i % 3])) + "\n" for i in range(count))
        packed = tmp_path / "packed"
        packed.write_bytes(gzip.compress("".join(rows).encode(), 1, mtime=0))
        tracemalloc.start()
        prepare(packed, "a.jsonl.gz", {}, tmp_path / "examples.jsonl")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000


def test_no_module_of_it_imports_a_framework() -> None:
    imports = "; ".join(f"import service.{name}" for name in MODULES)
    check = f"import sys; {imports}; print(sorted({{'torch', 'transformers', 'sklearn'}} & sys.modules.keys()))"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", check], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
