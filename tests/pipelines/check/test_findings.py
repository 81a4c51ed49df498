"""Every check on planted problems, and on data without any."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest
from datasets import Dataset

from pipelines.backbones import load_text_backbone
from pipelines.backbones.text import TextBackbone
from pipelines.check.classes import classes
from pipelines.check.findings import Items, members
from pipelines.check.languages import languages
from pipelines.check.lengths import lengths
from pipelines.check.personal import personal_data, personal_kinds
from pipelines.check.repeats import contradictions, duplicates, leaks
from pipelines.check.suspects import suspects
from pipelines.config import BackboneConfig
from tests.toys import tiny_backbone, toy_rows

LONG = "the quick brown fox jumps over the lazy dog while seven wizards brew a strange potion near the old mill"
OTHER = "the council approved a budget for new bicycle lanes after a debate that lasted until the early morning"


def items_of(*rows: tuple[str, str, str], groups: Sequence[str] | None = None) -> Items:
    """From (part, text, label); lines count from 2 in every part."""
    parts, texts, labels = zip(*rows, strict=True)
    lines = [2 + parts[:i].count(part) for i, part in enumerate(parts)]
    columns = {"text": texts, "label": labels, "line": lines, "group": groups or [""] * len(rows), "part": parts}
    return Items(Dataset.from_dict(columns))


CLEAN = items_of(*(("train", row["text"], row["label"]) for row in toy_rows(80)))


def test_groups_of_more_than_one_are_listed_in_order() -> None:
    found = [own.tolist() for own in members(np.array([3, 1, 3, 0, 1, 3]))]
    assert sorted(found) == [[0, 2, 5], [1, 4]]


# ---- repeats


def test_a_repeated_text_and_a_nearly_repeated_one_are_told_apart() -> None:
    found = duplicates(items_of(
        ("train", LONG, "a"), ("train", OTHER, "b"), ("train", LONG.upper() + "!", "a"), ("train", LONG + " x", "a"),
    ))  # fmt: skip
    assert found.level == "note"
    assert found.values == {"exact": 1, "near": 1}
    assert [(place.line, place.why, place.removable) for place in found.places] == [
        (4, "same text as train line 2 but for case, punctuation, links or symbols", False),
        (5, "nearly the same text as train line 2, directly or by others", False),
    ]


def test_a_repeat_is_removable_where_text_and_label_are_the_same() -> None:
    found = duplicates(items_of(*(("train", "how to learn " + name, label) for name, label in (
        ("C++", "cpp"), ("C#", "csharp"), ("c#", "csharp"), ("C#", "cpp"), (" C#", "csharp"),
    ))))  # fmt: skip
    assert [place.line for place in found.places] == [3, 4, 5, 6]
    assert [place.line for place in found.places if place.removable] == [6]


def test_texts_that_differ_in_a_symbol_do_not_contradict() -> None:
    found = contradictions(items_of(("train", "great 😀", "good"), ("train", "great 😡", "bad")))
    assert (found.level, found.values) == ("note", {"same_text": 0, "nearly_the_same": 2})


def test_many_copies_of_a_text_take_no_time() -> None:
    items = items_of(*[("train", LONG, "a")] * 10_000, ("train", LONG, "b"))
    started = time.monotonic()
    assert contradictions(items).values == {"same_text": 10_001, "nearly_the_same": 0}
    assert time.monotonic() - started < 20  # 1 s here


def test_the_same_text_in_two_parts_is_a_leak_and_no_duplicate() -> None:
    items = items_of(
        ("train", LONG, "a"), ("train", OTHER, "b"), ("test", LONG, "a"), ("validation", OTHER + " x", "b")
    )
    assert duplicates(items).level == "fine"
    found = leaks(items)
    assert found.level == "problem"
    assert found.values == {"train from test": 1, "train from validation": 1}
    assert [(place.part, place.line, place.why) for place in found.places] == [
        ("train", 2, "like test line 2"),
        ("train", 3, "like validation line 2"),
    ]


def test_a_group_in_two_parts_is_a_leak() -> None:
    rows = (("train", LONG, "a"), ("test", OTHER, "b"))
    assert leaks(items_of(*rows)).level == "fine"
    assert leaks(items_of(*rows, groups=["author 1", "author 1"])).values == {"train from test": 1}


def test_one_text_with_two_labels_is_a_problem_and_a_similar_one_a_note() -> None:
    found = contradictions(items_of(("train", LONG, "a"), ("train", LONG, "b"), ("train", OTHER, "b")))
    assert found.level == "problem"
    assert found.values == {"same_text": 2, "nearly_the_same": 0}
    assert found.places[0].why == "the same text is 'b' at train line 3"
    similar = contradictions(items_of(("train", LONG, "a"), ("train", LONG + " x", "b"), ("train", OTHER, "b")))
    assert (similar.level, similar.values) == ("note", {"same_text": 0, "nearly_the_same": 2})


@pytest.mark.parametrize("check", [duplicates, leaks, contradictions, classes, personal_data, languages])
def test_nothing_is_found_where_nothing_is_wrong(check: object) -> None:
    found = check(CLEAN)  # type: ignore[operator]
    assert (found.level, found.places) == ("fine", ())


# ---- classes


@pytest.mark.parametrize(
    ("counts", "level", "said"),
    [
        ({"a": 50, "b": 4}, "problem", "fewer than 5 of 'b': training refuses"),
        ({"a": 50, "b": 10}, "note", "fewer than 30 of 'b': their scores say little"),
        ({"a": 400, "b": 40}, "note", "read macro-F1, not accuracy"),
        ({"a": 60, "b": 40}, "fine", "2 classes, from 40 to 60 examples"),
    ],
)
def test_class_counts(counts: dict[str, int], level: str, said: str) -> None:
    rows = [("train", f"text {label} {i}", label) for label, count in counts.items() for i in range(count)]
    found = classes(items_of(*rows, ("test", "other", "a")))
    assert found.level == level
    assert said in found.sentence
    assert found.values == {"counts": counts}


def test_a_label_that_training_lacks_is_a_problem() -> None:
    rows = [("train", f"text {label} {i}", label) for label in "ab" for i in range(40)]
    found = classes(items_of(*rows, ("test", "other", "c"), ("validation", "more", "a")))
    assert found.level == "problem"
    assert "training lacks 'c'" in found.sentence
    assert [(place.part, place.line) for place in found.places] == [("test", 2)]


# ---- languages


def test_other_languages_are_counted_and_shown() -> None:
    german = "Der Stadtrat hat gestern Abend nach langer Debatte einen neuen Haushalt für Radwege beschlossen"
    english = [("train", f"{text} number {i}", "a") for i in range(10) for text in (LONG, OTHER)]
    found = languages(items_of(*english, ("train", german, "b"), ("train", "ok", "a"), ("train", "@a http://b.c", "a")))
    assert found.values == {"counts": {"en": 20, "de": 1}, "not_told": 2}
    assert [(place.line, place.why) for place in found.places] == [(22, "looks like 'de'")]
    assert found.level == "note"


def test_texts_that_are_all_too_short_have_no_language() -> None:
    assert languages(items_of(("train", "ok", "a"), ("train", "no", "b"))).values == {"counts": {}}


# ---- personal data


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("write to jane.doe+x@mail.example.org today", ["e-mail address"]),
        ("call +49 30 901820 now", ["telephone number"]),
        ("call (212) 555-2368 now", ["telephone number"]),
        ("pay with 4111 1111 1111 1111 please", ["card number"]),
        ("4111111111111111", ["card number"]),
        ("my card is 4111 1111 1111 1111.", ["card number"]),
        ("4111 1111 1111 1111 12/27 123", ["card number"]),
        ("4111-1111-1111-1111 4111-1111-1111-1111", ["card number"]),
        ("3782 822463 10005", ["card number"]),
        ("4111 1111 1111 1112 has a wrong check digit", []),
        ("in 2024 we sold 1,234,567 units at 3.99", []),
        ("@someone said hi at 10:30 on 2024-05-17", []),
        ("version 1.2.3.4, order 12345", []),
        ("", []),
    ],
)
def test_personal_data_is_recognised_by_its_form(text: str, kinds: list[str]) -> None:
    assert personal_kinds(text) == kinds


def test_a_text_counts_once_for_each_kind() -> None:
    found = personal_data(items_of(("train", "mail a@b.example or b@c.example", "a"), ("train", LONG, "b")))
    assert found.values == {"e-mail address": 1}
    assert [place.line for place in found.places] == [2]
    assert "@" not in found.sentence


@pytest.mark.parametrize("text", ["a" * 100_000, "1 " * 50_000, "a.b" * 40_000, "1-" * 60_000, "x@" * 50_000])
def test_hostile_texts_take_no_time(text: str) -> None:
    started = time.process_time()
    assert personal_kinds(text) == []
    assert time.process_time() - started < 30  # at most 2 s on a slow machine; what is quadratic takes minutes


# ---- lengths


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> TextBackbone:
    path = tiny_backbone(tmp_path_factory.mktemp("backbone") / "tiny")
    return load_text_backbone(BackboneConfig(name=str(path)), ("calm", "harsh"), 16, seed=0)


def test_cut_and_nearly_empty_texts_are_found(backbone: TextBackbone) -> None:
    fits, cut, short = "barn " * 14, "barn " * 15, "barn"
    found = lengths(items_of(*[("train", fits + f"x{i}"[:0], "a") for i in range(3)], ("train", cut, "a"),
                             ("train", short, "b")), backbone)  # fmt: skip
    assert found.values == {"p50": 14, "p90": 14, "p99": 14, "p100": 15, "max_length": 16, "cut": 1, "short": 1}
    assert [(place.line, place.why) for place in found.places] == [(5, "15 tokens, cut at 14"), (6, "1 tokens")]
    assert found.level == "problem"
    assert backbone.max_length == 16


# ---- label errors


def planted(flipped: int, classes: int = 4, each: int = 60) -> tuple[Items, np.ndarray, set[int]]:
    """Well separated classes of which some labels were changed."""
    rng = np.random.default_rng(0)
    true = np.repeat(np.arange(classes), each)
    embeddings = rng.normal(size=(len(true), 16)) + 6 * np.eye(16)[true]
    wrong = rng.choice(len(true), flipped, replace=False)
    given = true.copy()
    given[wrong] = (true[wrong] + 1) % classes
    rows = [("train", f"{i * 7919} unlike {i * 104729} text {i}", f"class {g}") for i, g in enumerate(given.tolist())]
    return items_of(*rows), embeddings, set(wrong.tolist())


def test_changed_labels_are_found_and_the_right_one_is_named() -> None:
    items, embeddings, wrong = planted(12)
    found = suspects(items, embeddings, seed=0)
    numbers = [place.number for place in found.places]
    assert set(numbers) <= wrong
    assert len(numbers) >= 9  # of 12: confident learning prunes as many as it estimates to be wrong, not all it doubts
    first = found.places[0]
    own = int(first.label.removeprefix("class "))
    assert f"'class {(own - 1) % 4}' is likelier" in first.why


def test_of_right_labels_few_are_doubted() -> None:
    items, embeddings, _ = planted(0)
    assert len(suspects(items, embeddings, seed=0).places) <= 2


def test_too_few_items_are_not_looked_at() -> None:
    items, embeddings, _ = planted(0, classes=2, each=10)
    assert suspects(items, embeddings, seed=0).level == "fine"
    found = suspects(items, embeddings, seed=0)
    assert "too few" in found.sentence
    assert found.places == ()


@pytest.mark.parametrize("each", [2, 3, 4])
def test_many_classes_of_few_examples_are_no_error(each: int) -> None:
    items, embeddings, _ = planted(0, classes=15, each=each * 2)
    items = items_of(*(("train", text, f"{label} {i % 2}") for i, (text, label) in enumerate(zip(
        items.texts, items.labels, strict=True
    ))))  # fmt: skip
    assert suspects(items, embeddings, seed=0).name == "label errors"


def test_fewer_groups_than_folds_are_no_error() -> None:
    items, embeddings, _ = planted(0)
    authors = [f"author {i % 4}" for i in range(len(items))]
    rows = zip(items.parts, items.texts, items.labels, strict=True)
    found = suspects(items_of(*rows, groups=authors), embeddings, seed=0)
    assert found.values["looked_at"] == len(items)


def test_a_class_with_one_example_is_left_out() -> None:
    items, embeddings, _ = planted(6)
    items.labels[0] = "alone"
    found = suspects(items, embeddings, seed=0)
    assert 0 not in {place.number for place in found.places}
    assert found.values["looked_at"] == len(items) - 1
