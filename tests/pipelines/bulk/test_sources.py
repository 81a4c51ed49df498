"""Batch input: every item in order with its place, broken rows kept, broken files refused, memory bounded."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.bulk import sources
from pipelines.bulk.sources import MAX_LINE_BYTES, Item, open_source
from pipelines.errors import ConfigError, DataError
from pipelines.tables import read_table

ROOT = Path(__file__).parents[3]


def save(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    raw = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(raw, mtime=0) if name.endswith(".gz") else raw)
    return path


def read(argument: Path | str, format: str | None = None) -> list[Item]:
    return list(open_source(str(argument), format).items())


def outcome(argument: Path | str, format: str | None = None) -> list[tuple[int, Any]]:
    """Line and values, or what is wrong."""
    return [(item.line, item.problem if item.values is None else item.values) for item in read(argument, format)]


def error(argument: Path | str, format: str | None = None) -> str:
    """The message, without the folder."""
    with pytest.raises(DataError) as caught:
        read(argument, format)
    return str(caught.value).replace(f"{Path(argument).parent}/", "")


# ---- rows that cannot be read


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ("{'a': 1}", "not valid JSON: Expecting property name enclosed in double quotes; expected one object per line"),
        ('{"a": 1, "a": 2}', "the key 'a' stands twice in one object"),
        ('{"a": NaN}', "NaN is not JSON; use null or a number"),
        ("[1]", "expected a JSON object, found list"),
        ("[" * 100_000, "the JSON is nested too deeply; expected one flat object per line"),
        (b'{"a": "\xe9"}', "expected UTF-8 text, found the byte 0xe9; save the file as UTF-8"),
        ('{"a": "x\0"}', "expected text, found a null byte; is this a binary file?"),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "ndjson.gz"])
def test_a_broken_line_of_jsonl(tmp_path: Path, broken: str | bytes, problem: str, suffix: str) -> None:
    raw = broken if isinstance(broken, bytes) else broken.encode()
    path = save(tmp_path, f"a.{suffix}", raw + b'\n\n{"a": "fine"}\n' + raw + b'\n{"b": 2}')
    assert outcome(path) == [(1, problem), (3, {"a": "fine"}), (4, problem), (5, {"b": 2})]
    assert open_source(str(path)).columns == ["a"]


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ("x", "expected 2 fields as in the header, found 1; put quotes around text that holds the separator"),
        ("x,y,z", "expected 2 fields as in the header, found 3; put quotes around text that holds the separator"),
        (
            '"he said "no"",y',
            "not a valid record: ',' expected after '\"'; quotes inside a quoted text must be doubled",
        ),
        (
            "x\ry,z",
            "not a valid record: a carriage return outside quotes; put quotes around the text, or end lines with a "
            "line feed",
        ),
        (b"\xff,y", "expected UTF-8 text, found the byte 0xff; save the file as UTF-8"),
        (b"x,\0", "expected text, found a null byte; is this a binary file?"),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_a_broken_record_of_csv(tmp_path: Path, broken: str | bytes, problem: str, suffix: str) -> None:
    raw = broken if isinstance(broken, bytes) else broken.encode()
    content = b'text,label\n"two\nlines",a\n' + raw + b"\n\nfine,b\n" + raw
    path = save(tmp_path, f"a.{suffix}", content)
    fine = [(2, {"text": "two\nlines", "label": "a"}), (6, {"text": "fine", "label": "b"})]
    assert outcome(path) == [fine[0], (4, problem), fine[1], (7, problem)]


def test_the_problem_is_the_strict_message_without_its_place(tmp_path: Path) -> None:
    path = save(tmp_path, "a.csv", 'text,label\na,b\n"x\ny"z,c\n')
    [problem] = [item for item in read(path) if item.values is None]
    with pytest.raises(DataError) as caught:
        list(read_table(path).rows)
    assert str(caught.value) == f"{path}, line 4: {problem.problem}"
    assert problem.line == 3  # where the record begins


def test_what_is_broken_inside_a_record_of_several_lines_ends_it(tmp_path: Path) -> None:
    path = save(tmp_path, "a.csv", b'text,label\n"x\n\xff\nfine,b\n')
    assert outcome(path) == [
        (2, "expected UTF-8 text, found the byte 0xff; save the file as UTF-8"),
        (4, {"text": "fine", "label": "b"}),
    ]


def test_a_quote_that_is_never_closed_is_one_item(tmp_path: Path) -> None:
    path = save(tmp_path, "a.csv", 'text,label\na,b\n"open,c\nd,e\n')
    found = outcome(path)
    assert found[0] == (2, {"text": "a", "label": "b"})
    assert [line for line, _ in found] == [2, 3]
    assert "a quote is opened and never closed" in found[1][1]


# ---- sizes


def peak_of(path: Path) -> tuple[list[Item], int]:
    tracemalloc.start()
    try:
        return read(path), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv"])
def test_a_line_of_50_mb_is_skipped_in_bounded_memory(tmp_path: Path, name: str) -> None:
    fine = b'{"text": "%d"}\n' if "jsonl" in name else b"%d\n"
    header = b"" if "jsonl" in name else b"text\n"
    path = save(tmp_path, name, header + fine % 1 + b"x" * 50_000_000 + b"\n" + fine % 2)
    items, peak = peak_of(path)
    assert [item.values for item in items] == [{"text": "1"}, None, {"text": "2"}]
    assert items[1].problem == "a line of more than 16 MiB; split or shorten the text"
    assert [item.line - items[0].line for item in items] == [0, 1, 2]
    assert peak < 40_000_000


def test_a_quote_left_open_over_many_lines_is_bounded_too(tmp_path: Path) -> None:
    line = b"y" * 999_999 + b"\n"
    path = save(tmp_path, "a.csv", b'text\nfine\n"open\n' + line * 20)
    items, peak = peak_of(path)
    assert items[1].problem == "a record of more than 16 MiB; close its quote, or split or shorten the text"
    assert items[1].line == 3
    assert [item.line for item in items[2:]] == [21, 22, 23]  # 16 lines and the one that was too much are gone
    assert {item.values["text"] for item in items[2:] if item.values} == {"y" * 999_999}
    assert peak < 160_000_000  # the csv module holds a field in 4 bytes a character, and twice while it grows


def test_a_line_just_short_enough(tmp_path: Path) -> None:
    text = "y" * (MAX_LINE_BYTES - len('{"t": ""}\n'))
    [fits] = read(save(tmp_path, "a.jsonl", json.dumps({"t": text}) + "\n"))
    [too_long] = read(save(tmp_path, "b.jsonl", json.dumps({"t": text + "y"}) + "\n"))
    assert fits.values == {"t": text}
    assert too_long.values is None


# ---- any mix of lines

PLAIN = st.text(st.characters(codec="utf-8", exclude_characters='\0\n\r",'), min_size=1, max_size=8)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
JSON_LINE = st.one_of(
    TEXT.map(lambda text: (json.dumps({"text": text}, ensure_ascii=False).encode(), {"text": text})),
    st.sampled_from([b"{", b"[]", b'{"a": \xff}', b"nonsense", b'{"a": Infinity}']).map(lambda raw: (raw, None)),
    st.sampled_from([b"", b"  ", b"\t"]).map(lambda raw: (raw, "blank")),
)
CSV_RECORD = st.one_of(
    st.tuples(PLAIN, TEXT).map(
        lambda pair: (f'{pair[0]},"{pair[1]}"'.encode(), {"a": pair[0], "b": pair[1]}) if '"' not in pair[1] else None
    ),
    st.sampled_from([b"one", b"a,b,c", b'"a"b,c', b"\xff,b", b"a,\xc3"]).map(lambda raw: (raw, None)),
    st.just((b"", "blank")),
).filter(bool)


def expected(lines: list[Any], first: int) -> list[tuple[int, Any]]:
    found, line = [], first
    for raw, values in lines:
        if values != "blank":
            found.append((line, values))
        line += raw.count(b"\n") + 1
    return found


def places(path: Path) -> list[tuple[int, Any]]:
    items = read(path)
    assert [item.number for item in items] == list(range(len(items)))
    assert {item.path for item in items} <= {str(path)}
    assert all((item.values is None) == (item.problem is not None) for item in items)
    return [(item.line, item.values) for item in items]


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(JSON_LINE, max_size=8), end=st.sampled_from([b"\n", b"\r\n"]))
def test_one_item_for_every_line_of_jsonl(
    tmp_path_factory: pytest.TempPathFactory, lines: list[Any], end: bytes
) -> None:
    folder = tmp_path_factory.mktemp("s")
    content = b"".join(raw + end for raw, _ in lines)
    wanted = expected(lines, 1)
    for name in ("a.jsonl", "a.jsonl.gz"):
        path = save(folder, name, content)
        if wanted:
            assert places(path) == wanted
        else:
            assert error(path) == f"{name}: the file is empty; expected one JSON object per line"


@settings(max_examples=60, deadline=None)
@given(records=st.lists(CSV_RECORD, max_size=8), end=st.sampled_from([b"\n", b"\r\n"]))
def test_one_item_for_every_record_of_csv(
    tmp_path_factory: pytest.TempPathFactory, records: list[Any], end: bytes
) -> None:
    folder = tmp_path_factory.mktemp("s")
    content = b"".join(raw + end for raw, _ in [(b"a,b", None), *records])
    for name in ("a.csv", "a.csv.gz"):
        assert places(save(folder, name, content)) == expected(records, 2)


# ---- files that cannot be used at all


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "a.csv: the file is empty; expected a first line with column names"),
        ("a.csv.gz", "", "a.csv.gz: the file is empty; expected a first line with column names"),
        ("a.jsonl", "", "a.jsonl: the file is empty; expected one JSON object per line"),
        ("a.csv", "x,y,x\n", "a.csv, line 1: the column name 'x' stands twice; rename one of them"),
        ("a.csv", '"x\n', "a.csv, line 1: not a valid record: a quote is opened and never closed; close it, or double"),
        ("a.csv", b"\xff,y\n", "a.csv, line 1, column 1: expected UTF-8 text, found the byte 0xff; save the file as"),
        ("a.csv", "x,y\n".encode("utf-16"), "a.csv, line 1, column 1: expected UTF-8, found UTF-16; save the file as"),
        ("a.jsonl", "{}\n".encode("utf-16"), "a.jsonl, line 1, column 1: expected UTF-8, found UTF-16; save the file"),
        ("a.jsonl", '{"a": 1}\n'.encode("utf-16-le"), "a.jsonl: expected UTF-8 text, found binary data; is it the"),
        ("a.csv", bytes(range(256)) * 999, "a.csv: expected UTF-8 text, found binary data; is it the right file, with"),
        (
            "a.jsonl",
            gzip.compress(b"{}\n", mtime=0),
            "a.jsonl: expected UTF-8 text, found binary data; is it the right file",
        ),
        ("a.jsonl", b"PK\x03\x04" + b"a" * 999 + b"\0", "a.jsonl: expected UTF-8 text, found binary data; is it the"),
        ("a.parquet", "x,y\n", "a.parquet: not a readable Parquet file: "),
        ("a.xlsx", "x", "a.xlsx: unknown format '.xlsx'; expected .csv, "),
    ],
)
def test_files_that_are_refused_before_the_first_item(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    path = save(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        open_source(str(path))
    assert str(caught.value).replace(f"{tmp_path}/", "").startswith(message)
    assert "\n" not in str(caught.value)


def test_a_parquet_file_with_the_name_of_a_text_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["word " * 50] * 9}), tmp_path / "a.csv", compression="none", use_dictionary=False)
    assert error(tmp_path / "a.csv").startswith("a.csv: expected UTF-8 text, found binary data")


def test_damaged_gzip_ends_the_reading(tmp_path: Path) -> None:
    whole = gzip.compress("".join(f'{{"n": {n * n}}}\n' for n in range(200_000)).encode(), mtime=0)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    found: list[Item] = []
    with pytest.raises(DataError, match=r"line \d+: the gzip data is damaged or cut off .*copy the file again$"):
        found.extend(open_source(str(path)).items())  # what came before the error is kept
    assert len(found) > 1000
    assert found[-1].values == {"n": (len(found) - 1) ** 2}
    path.write_text("{}\n")
    assert "the gzip data is damaged or cut off (Not a gzipped file" in error(path)


@pytest.mark.parametrize("argument", ["none.csv", "none*.csv", "x" * 300, "sub/none.csv"])
def test_nothing_there(tmp_path: Path, argument: str) -> None:
    assert "; paths are relative to the working directory" in error(tmp_path / argument)


@pytest.mark.parametrize(("argument", "format"), [("-", "parquet"), ("a.csv", "xml")])
def test_unknown_formats_are_misuse(argument: str, format: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown input format '{format}'; expected one of csv, tsv, jsonl"):
        open_source(argument, format)


# ---- several files


def test_the_files_of_a_folder_are_read_in_name_order_as_one(tmp_path: Path) -> None:
    save(tmp_path, "b.csv.gz", "label,text\nz,b1\n")
    save(tmp_path, "a.csv", "text,label\na1,x\n\na2\n")
    save(tmp_path, "c.tsv", "text\tlabel\nc1\ty\n")
    save(tmp_path, "_SUCCESS", "")
    save(tmp_path, ".hidden.csv", "other\n")
    save(tmp_path, "d", "x").rename(tmp_path / "_d")
    (tmp_path / "sub.csv").mkdir()
    source = open_source(str(tmp_path))
    assert (source.argument, source.columns, source.unit, source.schema) == (
        str(tmp_path),
        ["text", "label"],
        "line",
        None,
    )
    assert [file.name for file in source.files] == ["a.csv", "b.csv.gz", "c.tsv"]
    found = [
        (item.number, Path(item.path).name, item.line, item.values and item.values["text"]) for item in source.items()
    ]
    assert found == [(0, "a.csv", 2, "a1"), (1, "a.csv", 4, None), (2, "b.csv.gz", 2, "b1"), (3, "c.tsv", 2, "c1")]


def test_a_pattern(tmp_path: Path) -> None:
    for name in ("2.jsonl", "1.jsonl", "1.csv", "_0.jsonl"):
        save(tmp_path, name, json.dumps({"n": name}))
    source = open_source(f"{tmp_path}/*.jsonl")
    assert [item.values for item in source.items()] == [{"n": "1.jsonl"}, {"n": "2.jsonl"}]
    save(tmp_path, "[x].jsonl", '{"n": "a name, not a pattern"}')
    assert len(read(tmp_path / "[x].jsonl")) == 1


def test_other_files_in_a_folder_are_named(tmp_path: Path) -> None:
    save(tmp_path, "a.csv", "x\n1\n")
    save(tmp_path, "notes.docx", "x")
    assert error(tmp_path / "*").startswith("notes.docx: unknown format '.docx'")
    with pytest.raises(DataError, match=r"notes.docx: unknown format '.docx'; expected "):
        open_source(str(tmp_path))


def test_a_folder_without_files(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    save(tmp_path / "inner", "a.csv", "x\n")
    assert "the folder holds no input file (its folders are not entered); expected .csv" in error(tmp_path)


def test_other_columns_are_refused_before_any_item(tmp_path: Path) -> None:
    save(tmp_path, "a.csv", "x,y\n1,2\n")
    save(tmp_path, "b.csv", "x,z\n1,2\n")
    with pytest.raises(DataError) as caught:
        open_source(str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path}/b.csv: expected the columns of {tmp_path}/a.csv, 'x', 'y'; found 'x', 'z'"
    )


def test_rows_of_jsonl_are_free_in_form(tmp_path: Path) -> None:
    save(tmp_path, "a.jsonl", 'broken\n{"x": 1}\n')
    save(tmp_path, "b.jsonl", '{"y": [2]}\n')
    source = open_source(str(tmp_path))
    assert source.columns == ["x"]
    assert [item.values for item in source.items()] == [None, {"x": 1}, {"y": [2]}]


def test_an_empty_file_among_others_is_named_before_any_item(tmp_path: Path) -> None:
    save(tmp_path, "a.jsonl", "{}\n")
    save(tmp_path, "b.jsonl", "\n")
    with pytest.raises(DataError, match=r"b.jsonl: the file is empty"):
        open_source(str(tmp_path))


def test_no_readable_row_far_and_wide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LOOK_AHEAD", 3)
    source = open_source(str(save(tmp_path, "a.jsonl", 'x\nx\nx\n{"a": 1}\n')))
    assert source.columns == []
    assert [item.values for item in source.items()] == [None, None, None, {"a": 1}]


def test_the_format_may_be_said(tmp_path: Path) -> None:
    assert read(save(tmp_path, "a.txt", "x\ty\n1\t2\n"), "tsv")[0].values == {"x": "1", "y": "2"}
    assert read(save(tmp_path, "b.csv", '{"x": 1}\n'), "jsonl")[0].values == {"x": 1}


def test_digests_are_of_the_raw_bytes(tmp_path: Path) -> None:
    for folder in ("p", "q"):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder, "a.csv.gz", f"{folder}\n")
    raw = (tmp_path / "p" / "a.csv.gz").read_bytes()
    assert open_source(f"{tmp_path}/p/a.csv.gz").digests() == {"a.csv.gz": xxhash.xxh3_128_hexdigest(raw)}
    assert list(open_source(f"{tmp_path}/p").digests()) == ["a.csv.gz"]
    save(tmp_path / "q", "a.csv.gz", "p\n1\n")
    several = open_source(f"{tmp_path}/?/a.csv.gz").digests()
    assert list(several) == ["p/a.csv.gz", "q/a.csv.gz"]
    assert len(set(several.values())) == 2


# ---- Parquet and datasets


def test_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [f"t{n}" for n in range(600)], "n": range(600)}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": pa.nulls(1), "n": pa.array([7], pa.int8())}), tmp_path / "b.parquet")
    source = open_source(str(tmp_path))
    assert (source.columns, source.unit) == (["text", "n"], "row")
    assert source.schema == pa.schema({"text": pa.string(), "n": pa.int64()})
    items = list(source.items())
    assert [item.number for item in items] == list(range(601))
    assert [item.line for item in items] == [*range(1, 601), 1]
    assert items[299].values == {"text": "t299", "n": 299}
    assert items[600].values == {"text": None, "n": 7}
    assert items[600].path == str(tmp_path / "b.parquet")


def test_parquet_values_that_python_cannot_hold_are_problems(tmp_path: Path) -> None:
    texts = pa.array([b"a", b"\xff", b"c"]).view(pa.binary()).cast(pa.binary())
    broken = pa.StringArray.from_buffers(3, *texts.buffers()[1:])
    pq.write_table(pa.table({"text": broken}), tmp_path / "a.parquet")
    found = outcome(tmp_path / "a.parquet")
    assert [found[0], found[2]] == [(1, {"text": "a"}), (3, {"text": "c"})]
    assert found[1][0] == 2
    assert found[1][1].startswith("a value cannot be read: 'utf-8' codec can't decode byte 0xff")
    with pytest.raises(DataError, match=r"a.parquet, row 2: a value cannot be read: "):
        list(read_table(tmp_path / "a.parquet").rows)


def test_parquet_files_must_fit_together(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"other": ["a"]}), tmp_path / "b.parquet")
    assert "b.parquet: expected the columns of " in error(tmp_path / "*")
    pq.write_table(pa.table({"text": [[1]]}), tmp_path / "b.parquet")
    assert "b.parquet: its types and those of " in error(tmp_path / "*")
    save(tmp_path, "b.parquet", "x").rename(tmp_path / "b.csv")
    assert "a.parquet: Parquet and text files cannot be one input" in error(tmp_path / "*")


def test_a_folder_saved_by_datasets(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features).save_to_disk(tmp_path / "d")
    source = open_source(str(tmp_path / "d"))
    assert (source.columns, source.unit, source.files) == (["text", "label"], "row", [tmp_path / "d"])
    assert [(item.line, item.values) for item in source.items()] == [
        (1, {"text": "a", "label": "yes"}),
        (2, {"text": "b", "label": "no"}),
    ]
    assert "d/state.json" in source.digests()


# ---- standard input

SCRIPT = """
import json, sys
from pipelines.bulk.sources import open_source
source = open_source("-", *sys.argv[1:])
print(json.dumps([source.columns, source.files, source.digests(), source.unit]))
for item in source.items():
    print(json.dumps([item.number, item.path, item.line, item.values, item.problem]))
"""


def piped(content: bytes, *arguments: str) -> list[Any]:
    """What a process that is given `content` on its standard input finds; the last line of its error where it fails."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], input=content, capture_output=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0 or not done.stdout
    lines = done.stdout.decode().splitlines()
    return [json.loads(line) for line in lines] if lines else [done.stderr.decode().splitlines()[-1]]


def test_standard_input() -> None:
    assert piped(b'\xef\xbb\xbf{"a": 1}\n\nbroken\n{"a": "\xc3\xa9"}') == [
        [["a"], [], {}, "line"],
        [0, "-", 1, {"a": 1}, None],
        [1, "-", 3, None, "not valid JSON: Expecting value; expected one object per line"],
        [2, "-", 4, {"a": "é"}, None],
    ]
    assert piped(b"a,b\n1,2\n", "csv") == [[["a", "b"], [], {}, "line"], [0, "-", 2, {"a": "1", "b": "2"}, None]]


def test_standard_input_that_cannot_be_used() -> None:
    assert piped(os.urandom(100_000))[0].endswith(
        "-: expected UTF-8 text, found binary data; is it the right file, with the right name?"
    )
