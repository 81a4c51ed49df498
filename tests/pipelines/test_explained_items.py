"""What is explained: the report's items with their whole texts, the first rows of a file, given texts."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import ConfigError, DataError, RunDirectoryError
from pipelines.explained_items import ROWS, items_of
from pipelines.mistakes import LISTS, LONGEST
from pipelines.saved_run import SavedRun
from tests.runs import first_run, table
from tests.toys import toy_rows, write_csv


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SavedRun:
    """Three of its test items are listed, one of them twice, and the text of one is longer than a report shows."""
    folder = tmp_path_factory.mktemp("items")
    long = [{"text": row["text"] + " the cat sleeps" * 40, "label": row["label"]} for row in toy_rows(20, seed=7)]
    write_csv(folder / "test.csv", long)
    train = {"train": str(write_csv(folder / "train.csv", toy_rows(60))), "test": str(folder / "test.csv")}
    run = SavedRun(first_run(folder, data=train))
    every = [entry for name in LISTS for entry in run.report["mistakes"][name]]
    rows = table(run.path)
    entries = [
        {"id": id, "text": text[: LONGEST - 1] + "…", "label": label, "fine_tuned": "calm"}
        for id, text, label in zip(rows["id"][:3], rows["text"], rows["label"], strict=False)
    ]
    assert all(set(entries[0]) <= set(entry) for entry in every)
    lists = {"worst_errors": entries[:2], "only_rival_right": entries[1:2], "only_fine_tuned_right": entries[2:]}
    run.report["mistakes"] |= lists
    return run


def test_items_of_the_report_come_once_with_their_whole_text_and_all_reasons(run: SavedRun) -> None:
    found = items_of(run, (), None, None, None)
    rows = table(run.path)
    assert [item.text for item in found] == rows["text"][:3]
    assert min(len(item.text) for item in found) > LONGEST
    assert [item.id for item in found] == rows["id"][:3]
    assert [item.label for item in found] == rows["label"][:3]
    assert [item.why for item in found] == [
        "surest errors", "surest errors, only the rival is right", "only the model is right",
    ]  # fmt: skip


def test_a_report_without_errors_is_one_line(run: SavedRun) -> None:
    empty = SavedRun(run.path)
    empty.report["mistakes"] |= {name: [] for name in LISTS}
    with pytest.raises(RunDirectoryError, match="lists neither errors nor disagreements; name a file with --input"):
        items_of(empty, (), None, None, None)


def test_texts_are_numbered_and_have_no_label(run: SavedRun) -> None:
    found = items_of(run, ["the cat", "a dog"], None, None, None)
    assert [(item.id, item.text, item.label, item.why) for item in found] == [
        ("text 1", "the cat", None, "given"), ("text 2", "a dog", None, "given"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_the_first_rows_of_a_file_with_labels_where_it_has_them(run: SavedRun, tmp_path: Path, name: str) -> None:
    rows = toy_rows(30)
    file, first = tmp_path / name, 2 if name == "t.csv" else 1
    if name == "t.csv":
        write_csv(file, rows)
    elif name == "t.jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), file)
    found = items_of(run, (), file, None, None)
    assert [item.text for item in found] == [row["text"] for row in rows[:ROWS]]
    assert [item.label for item in found] == [row["label"] for row in rows[:ROWS]]
    assert found[1].id == str(first + 1)
    assert found[1].why == f"{'row' if name == 't.parquet' else 'line'} {first + 1} of {name}"
    assert len(items_of(run, (), file, None, 3)) == 3


def test_another_column_and_no_label(run: SavedRun, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "t.csv", [{"body": "the cat"}])
    (item,) = items_of(run, (), file, "body", None)
    assert (item.text, item.label) == ("the cat", None)
    (tmp_path / "t.jsonl").write_text('{"text": "a", "label": null}\n{"text": "b"}\n')
    assert [item.label for item in items_of(run, (), tmp_path / "t.jsonl", None, None)] == [None, None]


def test_rows_behind_the_limit_are_not_read(run: SavedRun, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "the cat"}\nnot json\n')
    assert len(items_of(run, (), tmp_path / "t.jsonl", None, 1)) == 1
    with pytest.raises(DataError, match=r"t\.jsonl, line 2, column 1: not valid JSON"):
        items_of(run, (), tmp_path / "t.jsonl", None, 2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "the file is empty; expected a first line with column names"),
        ("text,label\n", "expected rows below the header, found none; add rows"),
        ("body\nx\n", "no column 'text' (--column); columns found: body"),
        ("texts\nx\n", "Did you mean `--column texts`?"),
        ('text\nx\n" "\n', "line 3: the text in column 'text' is empty; fill it or remove the row"),
    ],
)
def test_a_bad_file_is_one_helpful_line(run: SavedRun, tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "bad.csv").write_text(content)
    with pytest.raises(DataError) as error:
        items_of(run, (), tmp_path / "bad.csv", None, None)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_column_of_numbers_names_the_option(run: SavedRun, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"n": 5, "text": "x"}\n')
    with pytest.raises(DataError, match=r"expected text in column 'n', found int; fill it or check --column"):
        items_of(run, (), tmp_path / "t.jsonl", "n", None)


def test_options_that_do_not_go_together_are_one_line(run: SavedRun, tmp_path: Path) -> None:
    for arguments, said in (
        ((["a"], tmp_path / "t.csv", None, None), "found both"),
        (([], None, "body", None), "name it with --input"),
        ((["a"], None, None, 3), "name it with --input"),
        ((["a", " "], None, None, None), "expected a text, found nothing"),
        (([b"\xff".decode(errors="surrogateescape")], None, None, None), "expected UTF-8"),
    ):
        with pytest.raises(ConfigError, match=said):
            items_of(run, *arguments)
