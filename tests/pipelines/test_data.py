"""Files -> items -> splits: every refusal with its message, and what the parts never share."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pipelines.config import DataConfig, SplitFile, parse_config
from pipelines.data import load_splits, read_items
from pipelines.errors import ConfigError, DataError
from pipelines.records import Splits, column
from pipelines.run import finetune
from tests.toys import toy_config
from tests.written import write_table

VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in ("lim", "ton", "rex", "sad", "pun")]


def sentence(seed: int, words: int = 25) -> str:
    """Random words: two of these are never near duplicates."""
    return " ".join(np.random.default_rng(seed).choice(VOCABULARY, words))


def rows(count: int, labels: str = "ab", start: int = 0) -> list[dict[str, Any]]:
    return [{"text": sentence(start + i), "label": labels[i % len(labels)]} for i in range(count)]


def save(path: Path, items: list[dict[str, Any]]) -> Path:
    write_table(path, list(items[0]), items)
    return path


def config(train: Path | dict[str, Any], **settings: Any) -> DataConfig:
    return DataConfig.model_validate({"train": train, "text": "text", "label": "label"} | settings)


def split(folder: Path, items: list[dict[str, Any]], seed: int = 0, **settings: Any) -> Splits:
    return load_splits(config(save(folder / "train.jsonl", items), **settings), seed)


def parts(splits: Splits) -> dict[str, set[str]]:
    return {name: set(column(getattr(splits, name), "text")) for name in ("train", "validation", "test")}


def error(settings: DataConfig) -> str:
    with pytest.raises(DataError) as caught:
        load_splits(settings, 0)
    return str(caught.value).replace(f"{settings.train.path.parent}/", "")


# ---- the same items from every format

LABELS = ["01", "no", " ü ", "yes please"]
WRITTEN = [
    {"text": f'say "{i}",\tnow\n日本', "label": LABELS[i % 4], "key": f"k{i // 2}", "kind": "x"} for i in range(24)
]


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl", "csv.gz", "tsv.gz", "jsonl.gz", "parquet", "folder"])
def test_every_format_gives_the_same_items(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"d.{format}"
    if format == "folder":
        dataset = datasets.Dataset.from_list(WRITTEN)
        features = dataset.features | {"label": datasets.ClassLabel(names=LABELS)}
        dataset.cast(datasets.Features(features)).save_to_disk(str(path))
    else:
        write_table(path, list(WRITTEN[0]), WRITTEN)
    items = read_items(SplitFile(path=path), config(path, id="key", group="key", slices=["kind"]))
    assert column(items, "text") == [row["text"] for row in WRITTEN]
    assert column(items, "label") == [row["label"] for row in WRITTEN]
    assert column(items, "id") == column(items, "group") == [row["key"] for row in WRITTEN]
    assert column(items, "kind") == ["x"] * 24
    splits = load_splits(config(path), 0)
    assert splits.labels == (" ü ", "01", "no", "yes please")


def test_numbers_and_booleans_are_labels_as_json_writes_them(tmp_path: Path) -> None:
    items = [{"text": sentence(i), "label": [1, True, "1", 0.5][i % 4]} for i in range(20)]
    splits = split(tmp_path, items)
    assert splits.labels == ("0.5", "1", "true")


def test_where_and_line_numbers(tmp_path: Path) -> None:
    items = [row | {"split": i % 2, "ok": True} for i, row in enumerate(rows(40))]
    path = save(tmp_path / "a.jsonl", items)
    read = read_items(SplitFile(path=path, where={"split": "1", "ok": "true"}), config(path))
    assert column(read, "line") == list(range(2, 41, 2))
    assert column(read, "id") == [str(line) for line in range(2, 41, 2)]
    assert column(read, "text") == [row["text"] for row in items[1::2]]


# ---- refusals


def csv(folder: Path, text: str, name: str = "a.csv") -> DataConfig:
    (folder / name).write_text(text, encoding="utf-8")
    return config(folder / name)


MANY = "".join(f"{sentence(i)},{'ab'[i % 2]}\n" for i in range(20))


@pytest.mark.parametrize(
    ("header", "changes", "message"),
    [
        (
            "id,tweet,class",
            {},
            "a.csv: no column 'text' (data.text); columns found: id, tweet, class. Did you mean `data.text: tweet`?",
        ),
        (
            "text,class",
            {},
            "a.csv: no column 'label' (data.label); columns found: text, class. Did you mean `data.label: class`?",
        ),
        ("text,label", {"group": "q"}, "a.csv: no column 'q' (data.group); columns found: text, label"),
        ("text,label", {"slices": ["q"]}, "a.csv: no column 'q' (data.slices); columns found: text, label"),
        (
            "text,label,split",
            {"train": {"path": "a.csv", "where": {"spilt": "x"}}},
            "a.csv: no column 'spilt' (where); columns found: text, label, split. Did you mean `where: split`?",
        ),
    ],
)
def test_missing_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text(header + "\n")
    settings = config("a.csv", **changes) if "train" not in changes else config(changes["train"])  # type: ignore[arg-type]
    assert error(settings) == message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "a.csv: expected rows below the header, found none; add rows"),
        (
            "x,a\n  ,b\n,b\n",
            "a.csv, line 3: the text in column 'text' is empty; fill it or remove the row (1 more such rows)",
        ),
        ("x,a\ny, \n", "a.csv, line 3: the label in column 'label' is empty; fill it or remove the row"),
        (
            "x,a\ny,a\n",
            "a.csv: expected at least two classes in column 'label', found only 'a'; add rows of another class or "
            "check data.label",
        ),
        (
            MANY + "q,c\nr,c\ns,d\n",
            "a.csv: expected at least 5 examples of every class, found 'd' (1), 'c' (2); add examples, merge the class "
            "into another or remove it",
        ),
    ],
)
def test_unusable_rows(tmp_path: Path, body: str, message: str) -> None:
    assert error(csv(tmp_path, "text,label\n" + body)) == message


def test_a_label_column_of_sentences_is_questioned(tmp_path: Path) -> None:
    message = error(csv(tmp_path, "text,label\n" + "".join(f"a,{sentence(i, 3)}\n" for i in range(30))))
    assert " and 25 more; " in message
    assert message.endswith(". Is 'label' the label column?")


def test_text_of_another_type_and_no_class_label(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [1, 2], "label": ["a", "b"]}), path)
    assert error(config(path)) == (
        "a.parquet, row 1: expected text in column 'text', found int; fill it or check data.text (1 more such rows)"
    )
    save(tmp_path / "a.jsonl", [*rows(20), {"text": None, "label": "a"}])
    assert "a.jsonl, line 21: expected text in column 'text', found nothing;" in error(config(tmp_path / "a.jsonl"))
    save(tmp_path / "b.jsonl", [*rows(20), {"text": "x"}])
    assert "b.jsonl, line 21: the label in column 'label' is empty;" in error(config(tmp_path / "b.jsonl"))


@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_label_that_training_never_saw(tmp_path: Path, name: str) -> None:
    train = save(tmp_path / "a.jsonl", rows(20))
    other = save(tmp_path / "b.jsonl", [*rows(6, start=100), {"text": "new", "label": "c"}])
    assert error(config(train, **{name: other})) == (
        "b.jsonl, line 7: the label 'c' does not occur in the training part (labels there: 'a', 'b'); "
        "add training examples of it or remove the row"
    )


def test_no_rows_where(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jsonl", rows(20))
    message = error(config({"path": path, "where": {"label": "q"}}))
    assert message == "a.jsonl: expected rows with {'label': 'q'}, found none; check the values of `where`"


@pytest.mark.parametrize("name", ["validation", "test"])
def test_the_training_file_given_twice(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / "a.jsonl", rows(20))
    message = error(config(path, **{name: path}))
    assert "no training example of 'a', 'b' is left after splitting (20 were dropped: duplicates" in message


def test_one_group_cannot_be_split(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jsonl", [row | {"key": "same"} for row in rows(20)])
    message = error(config(path, group="key"))
    assert message.endswith("add examples, raise data.max_train_items, or check data.group")


@pytest.mark.parametrize("seed", range(6))
def test_a_class_that_only_validation_keeps_is_refused(tmp_path: Path, seed: int) -> None:
    """All of class c is one group, which a seed may put into either part."""
    items = [row | {"key": str(i)} for i, row in enumerate(rows(41))]
    items += [{"text": sentence(900 + i), "label": "c", "key": "same"} for i in range(5)]
    test = save(tmp_path / "b.jsonl", [row | {"key": ""} for row in rows(6, start=100)])
    try:
        splits = split(tmp_path, items, seed, group="key", validation=0.5, test=test)
    except DataError as caught:
        refused = str(caught)
    else:
        refused = ""
        assert splits.targets(splits.validation).max() == 1
        assert Counter(column(splits.train, "label"))["c"] == 5
    assert refused == "" or "no training example of 'c' is left after splitting; add examples" in refused


def test_a_bad_file_leaves_nothing_on_disk(tmp_path: Path) -> None:
    raw = toy_config(tmp_path)
    good = {path.name for path in tmp_path.iterdir()}
    out = tmp_path / "runs" / "out"
    bad = parse_config(raw | {"data": raw["data"] | {"text": "tweet"}})
    with pytest.raises(DataError, match="no column 'tweet'"):
        list(finetune(bad, out))
    with pytest.raises(ConfigError, match=r"evaluation\.positive: no class 'x'; classes found: calm, harsh"):
        list(finetune(parse_config(raw | {"evaluation": {"positive": "x"}}), out))
    assert {path.name for path in tmp_path.iterdir()} == good


# ---- splits


def test_sizes_are_exact_and_stratified(tmp_path: Path) -> None:
    splits = split(tmp_path, rows(200, labels="aaab"), test=0.2, validation=0.1)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (144, 16, 40)
    for name, size in (("train", 144), ("validation", 16), ("test", 40)):
        assert Counter(column(getattr(splits, name), "label")) == {"a": size * 3 // 4, "b": size // 4}
        assert splits.counts[name] == size
    assert splits.counts["read_train"] == splits.counts["groups"] == 200
    assert splits.counts["exact_duplicates"] == splits.counts["dropped_from_train"] == 0


def test_the_seed_decides(tmp_path: Path) -> None:
    first, again, other = (split(tmp_path, rows(80), seed) for seed in (1, 1, 2))
    assert parts(first) == parts(again)
    assert parts(first)["test"] != parts(other)["test"]
    assert parts(first)["validation"] != parts(other)["validation"]
    assert column(first.train, "line") == sorted(column(first.train, "line"))


def test_max_train_items_is_exact_and_leaves_the_test_part_alone(tmp_path: Path) -> None:
    whole = split(tmp_path, rows(200, labels="aaab"))
    less = split(tmp_path, rows(200, labels="aaab"), max_train_items=40)
    assert parts(less)["test"] == parts(whole)["test"]
    assert (len(less.train), len(less.validation)) == (36, 4)
    assert Counter(column(less.train, "label") + column(less.validation, "label")) == {"a": 30, "b": 10}
    assert less.counts["left_out_by_max_train_items"] == 120
    same = split(tmp_path, rows(200, labels="aaab"), max_train_items=160)
    assert parts(same) == parts(whole)
    assert "left_out_by_max_train_items" not in same.counts


def test_given_parts_are_honoured_and_leaks_dropped_and_counted(tmp_path: Path) -> None:
    """A test text's copies leave validation and training; a validation text's copies leave training."""
    test = [*rows(10, start=500), rows(1, start=500)[0]]  # a duplicate inside the test part stays
    validation = [*rows(10, start=600), {"text": test[0]["text"].upper() + "!", "label": "a"}]
    leaks = [
        {"text": "@you " + test[1]["text"], "label": "b"},
        {"text": test[2]["text"] + " lim", "label": "a"},  # near
        {"text": validation[3]["text"], "label": "a"},
    ]
    files = {
        "test": save(tmp_path / "test.jsonl", test),
        "validation": save(tmp_path / "validation.jsonl", validation),
    }
    splits = split(tmp_path, [*rows(30), *leaks], **files)
    assert column(splits.test, "text") == [row["text"] for row in test]
    assert column(splits.validation, "text") == [row["text"] for row in validation[:10]]
    assert column(splits.train, "text") == [row["text"] for row in rows(30)]
    assert splits.counts == {
        "read_test": 11,
        "read_validation": 11,
        "read_train": 33,
        "exact_duplicates": 4,
        "texts_with_contradicting_labels": 1,  # validation[3] is of class b
        "groups": 50,
        "dropped_from_validation": 1,
        "dropped_from_train": 3,
        "train": 30,
        "validation": 10,
        "test": 11,
    }


def test_contradicting_labels_stay_in_one_part_and_are_counted(tmp_path: Path) -> None:
    items = rows(60)
    doubled = [{"text": row["text"].upper(), "label": "ba"[i % 2]} for i, row in enumerate(items[:10])]
    splits = split(tmp_path, items + doubled)
    assert splits.counts["texts_with_contradicting_labels"] == splits.counts["exact_duplicates"] == 10
    kept = [part for name in ("train", "validation", "test") for part in column(getattr(splits, name), "text")]
    assert sorted(kept) == sorted(row["text"] for row in items + doubled)
    for texts in parts(splits).values():
        assert {text.lower() for text in texts if text.isupper()} <= texts


COPIES = st.sampled_from(["{}", "{} lim", "RT @a {}", "{} https://t.co/a"])


@settings(max_examples=15, deadline=None, derandomize=True, phases=[Phase.generate])  # shrinking takes minutes
@given(
    copies=st.lists(st.tuples(st.integers(0, 39), COPIES), max_size=15),
    joined=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=5),
    given_parts=st.sampled_from([(), ("test",), ("validation",), ("validation", "test")]),
    seed=st.integers(0, 1000),
)
def test_no_duplicate_and_no_group_straddles_parts(
    tmp_path_factory: pytest.TempPathFactory,
    copies: list[tuple[int, str]],
    joined: list[tuple[int, int]],
    given_parts: tuple[str, ...],
    seed: int,
) -> None:
    """`origin` is the text that an item was copied from: an answer that no duplicate search is needed for."""
    folder = tmp_path_factory.mktemp("d")
    items = [row | {"origin": str(i)} for i, row in enumerate(rows(40))]
    items += [
        {"text": edit.format(items[i]["text"]), "label": items[i]["label"], "origin": str(i)} for i, edit in copies
    ]
    for item in items:
        item["key"] = ""
    for key, pair in enumerate(joined):
        for i in pair:
            items[i]["key"] = str(key)
    files = {name: save(folder / f"{name}.jsonl", items[n::5]) for n, name in enumerate(given_parts)}
    train = [item for n, item in enumerate(items) if n % 5 >= len(given_parts)]
    settings = {"group": "key", "slices": ["origin", "key"], "validation": 0.2, "test": 0.25} | files
    splits = split(folder, train, seed, **settings)
    for name in ("origin", "key"):
        held = [set(column(getattr(splits, part), name)) - {""} for part in ("train", "validation", "test")]
        assert not held[0] & held[1]
        assert not held[0] & held[2]
        assert not held[1] & held[2]
    if "test" in given_parts:
        given_test = [json.loads(line)["text"] for line in files["test"].read_text(encoding="utf-8").splitlines()]
        assert column(splits.test, "text") == given_test
    counts = splits.counts
    kept = counts["train"] + counts["validation"] + counts["test"]
    assert kept + counts["dropped_from_train"] + counts["dropped_from_validation"] == len(items)


def test_a_small_class_is_in_every_part(tmp_path: Path) -> None:
    """Stratified sampling alone gives a class of 5 no validation item."""
    rows = [
        f"text number {i} {'abcdefghij'[i % 10] * 9},{'a' if i < 40 else 'b' if i < 70 else 'c'}" for i in range(75)
    ]
    path = tmp_path / "three.csv"
    path.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    for seed in range(6):
        splits = load_splits(DataConfig.model_validate({"train": path, "text": "text", "label": "label"}), seed)
        for part in (splits.train, splits.validation, splits.test):
            assert set(column(part, "label")) == {"a", "b", "c"}


# ---- after an earlier run


def seen(items: list[dict[str, Any]], part: str = "train") -> datasets.Dataset:
    """Items as the run of `start_from` recorded them."""
    common = {"id": "", "group": 7, "line": 1, "part": part, "origin": "own"}
    return datasets.Dataset.from_list([common | item for item in items])


def continued(
    folder: Path, items: list[dict[str, Any]], earlier: datasets.Dataset, seed: int = 0, **settings: Any
) -> Splits:
    return load_splits(config(save(folder / "train.jsonl", items), **settings), seed, earlier, ("b", "a"))


def test_known_labels_come_first_in_their_order_and_need_no_example(tmp_path: Path) -> None:
    settings = config(save(tmp_path / "a.jsonl", rows(40, labels="cab")))
    splits = load_splits(settings, 0, None, ("z", "b"))
    assert splits.labels == ("z", "b", "a", "c")
    assert splits.targets(splits.test).tolist() == [{"b": 1, "a": 2, "c": 3}[v] for v in column(splits.test, "label")]
    assert splits.earlier is None


def test_a_label_that_only_the_earlier_run_knows_may_be_tested(tmp_path: Path) -> None:
    test = save(tmp_path / "b.jsonl", [*rows(6, start=100), {"text": sentence(300), "label": "z"}])
    settings = config(save(tmp_path / "a.jsonl", rows(20)), test=test)
    splits = load_splits(settings, 0, None, ("z", "a"))
    assert splits.labels == ("z", "a", "b")
    assert splits.targets(splits.test).tolist() == [1, 2, 1, 2, 1, 2, 0]


@pytest.mark.parametrize("seed", range(4))
def test_fractions_are_cut_of_what_the_earlier_run_has_not_seen(tmp_path: Path, seed: int) -> None:
    old, new = rows(40), rows(60, start=200)
    copies = ["{}", "RT @a {}", "{} lim", "{}!"]
    again = [row | {"text": copies[i % 4].format(row["text"])} for i, row in enumerate(old)]
    splits = continued(tmp_path, again + new, seen(old), seed, test=0.2, validation=0.25)
    fresh = {row["text"] for row in new}
    assert parts(splits)["test"] | parts(splits)["validation"] <= fresh
    assert {row["text"] for row in again} <= parts(splits)["train"]  # to be trained on again
    assert (len(splits.test), len(splits.validation), len(splits.train)) == (12, 12, 76)
    assert splits.counts["seen_by_start_from"] == splits.counts["exact_duplicates"] + 20 == 40
    assert splits.counts["dropped_from_train"] == 0


def test_what_shares_a_group_with_a_seen_item_is_not_cut_either(tmp_path: Path) -> None:
    """Item 0 was seen; 20 others have its key."""
    items = [row | {"key": "same" if i <= 20 else str(i)} for i, row in enumerate(rows(60))]
    splits = continued(tmp_path, items, seen(rows(1)), group="key", slices=["key"])
    assert "same" not in column(splits.test, "key") + column(splits.validation, "key")
    assert Counter(column(splits.train, "key"))["same"] == 21


def test_earlier_items_keep_their_part_and_share_groups_with_their_copies(tmp_path: Path) -> None:
    old = rows(10)
    splits = continued(tmp_path, [old[3], *rows(40, start=100)], seen(old, "validation"))
    assert splits.earlier is not None
    assert column(splits.earlier, "text") == [row["text"] for row in old]
    assert set(column(splits.earlier, "part")) == {"validation"}
    groups = dict(zip(column(splits.train, "text"), column(splits.train, "group"), strict=True))
    assert column(splits.earlier, "group")[3] == groups[old[3]["text"]]
    assert len(set(column(splits.earlier, "group"))) == 10
    assert "part" not in splits.train.column_names


@pytest.mark.parametrize("copy", ["{}", "{} lim", "RT @a {}"])
def test_a_test_file_with_items_seen_before_is_refused(tmp_path: Path, copy: str) -> None:
    items = rows(8, start=100)
    items[4]["text"], items[6]["text"] = (copy.format(sentence(number)) for number in (2, 5))
    test = save(tmp_path / "b.jsonl", items)
    with pytest.raises(DataError) as caught:
        continued(tmp_path, rows(20, start=300), seen(rows(10)), test=test)
    assert str(caught.value) == (
        f"{test}, line 5: the run of start_from has seen 2 of the test items or duplicates of them, the first of "
        "them here; its score on them would flatter it: remove them from the test file"
    )


def test_a_test_item_tied_to_a_seen_one_by_a_training_item_is_refused(tmp_path: Path) -> None:
    """The training file repeats a seen text under a key that a test item has."""
    train = [row | {"key": str(i)} for i, row in enumerate(rows(20))]
    test = save(tmp_path / "b.jsonl", [row | {"key": str(i + 19)} for i, row in enumerate(rows(6, start=100))])
    with pytest.raises(DataError, match=r"b\.jsonl, line 1: the run of start_from has seen 1 of the test items"):
        continued(tmp_path, train, seen(rows(1, start=19)), test=test, group="key")


def test_validation_items_seen_before_are_dropped_and_counted(tmp_path: Path) -> None:
    validation = [*rows(6, start=100), *rows(3)]
    path = save(tmp_path / "v.jsonl", validation)
    splits = continued(tmp_path, rows(30, start=200), seen(rows(10)), validation=path)
    assert column(splits.validation, "text") == [row["text"] for row in validation[:6]]
    assert splits.counts["dropped_from_validation"] == 3
    assert splits.counts["dropped_from_train"] == 0


def test_nothing_new_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no item is left for the validation part; add data or give a validation file"):
        continued(tmp_path, rows(20), seen(rows(20)))


def test_max_train_items_bounds_new_items_only(tmp_path: Path) -> None:
    splits = continued(tmp_path, rows(60, start=100), seen(rows(30)), max_train_items=20, validation=0.2)
    assert (len(splits.train), len(splits.validation)) == (16, 4)
    assert splits.earlier is not None
    assert len(splits.earlier) == 30
