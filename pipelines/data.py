"""Files -> checked items -> splits that share no duplicate and no group. All before anything is learned.

The order is a contract: given parts are honoured and a given test part is never changed; duplicates and groups are
found; what a later part shares with an earlier one (test, then validation, then training) is dropped and counted; the
test fraction is cut; `max_train_items` bounds what is not test; the validation fraction comes out of those. What the
run of `start_from` has seen can only be trained on again: it is never cut for test or validation, and a test file that
holds it is refused.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from numpy.typing import NDArray
from sklearn.utils import resample

from pipelines.config import DataConfig, SplitFile
from pipelines.duplicates import exact_groups, group_items, number_by
from pipelines.errors import DataError
from pipelines.records import COMMON, IntArray, Splits, column
from pipelines.tables import USUAL_COLUMNS, Row, Table, read_table, unit_of

MIN_PER_CLASS = 5  # examples of every class outside a given test part
EARLIER = "earlier"  # part: seen by the run of `start_from`


def load_splits(
    config: DataConfig, seed: int, earlier: Dataset | None = None, known_labels: Sequence[str] = ()
) -> Splits:
    """Read, check and split.

    Args:
        config: columns, files and fractions.
        seed: of every random choice made here.
        earlier: items that the run of `start_from` has seen, with their `part`.
        known_labels: that run's classes; they come first, in their order, and need no example here.

    Raises:
        DataError: with file, line, what was expected and found, and what to do.
    """
    given = {
        name: part for name in ("test", "validation", "train") if isinstance(part := getattr(config, name), SplitFile)
    }
    parts = {name: read_items(part, config) for name, part in given.items()}
    _check_classes(parts, config, known_labels)
    counts = {f"read_{name}": len(part) for name, part in parts.items()}
    if earlier is not None:
        earlier = earlier.select_columns([*COMMON, "part"])
        parts = {EARLIER: _with_group(earlier, [""] * len(earlier))} | parts
        counts["seen_by_start_from"] = len(earlier)

    labelled = [Dataset.from_dict(part[:] | {"part": [name] * len(part)}) for name, part in parts.items()]
    items = concatenate_datasets(labelled)
    exact = exact_groups(column(items, "text"))
    keys = [column(items, "group")] if config.group else []
    groups = group_items(column(items, "text"), keys)
    items = _with_group(items, groups.tolist())
    counts |= _duplicate_counts(items, exact)

    chosen = _without_leaks(items, counts, config)
    seen = groups[chosen[EARLIER]] if EARLIER in chosen else groups[:0]
    rng_seed = np.random.SeedSequence(seed).generate_state(3)
    pool = chosen["train"]
    if not isinstance(config.test, SplitFile):
        pool, chosen["test"] = _cut(items, pool, config.test, int(rng_seed[0]), seen)
    pool = _limit(items, pool, config.max_train_items, int(rng_seed[1]), counts)
    if not isinstance(config.validation, SplitFile):
        pool, chosen["validation"] = _cut(items, pool, config.validation, int(rng_seed[2]), seen)
    chosen["train"] = pool

    train, validation, test = (
        items.select(np.sort(chosen[name])).remove_columns("part") for name in ("train", "validation", "test")
    )
    counts |= {"train": len(train), "validation": len(validation), "test": len(test)}
    new = sorted(set(column(train, "label")) - set(known_labels))
    if earlier is not None:
        earlier = _with_group(earlier, groups[: len(earlier)].tolist())
    splits = Splits(train, validation, test, (*known_labels, *new), counts, earlier)
    _check_splits(splits, config)
    return splits


# ---- reading


def read_items(part: SplitFile, config: DataConfig) -> Dataset:
    """The rows of one part as a Dataset with text, label, id, group, line and the slice columns.

    Raises:
        DataError: for a missing column, an empty text or label, or no rows.
    """
    table = read_table(part.path)
    named = [
        ("data.text", config.text),
        ("data.label", config.label),
        ("data.id", config.id),
        ("data.group", config.group),
    ]
    named += [("data.slices", column) for column in config.slices] + [("where", column) for column in part.where]
    require_columns(table.path, table.columns, [(key, column) for key, column in named if column is not None])

    rows = matching_rows(table.rows, part.where)
    if not rows:
        wanted = f"expected rows with {part.where}, found none; check the values of `where`"
        raise DataError(part.path, wanted if part.where else "expected rows below the header, found none; add rows")
    texts = texts_of(table, rows, config.text)
    labels = _labels(table, rows, config.label)
    return Dataset.from_dict(
        {
            "text": texts,
            "label": labels,
            "id": [cell(row.values.get(config.id)) if config.id else str(row.line) for row in rows],
            "group": [cell(row.values.get(config.group)) if config.group else "" for row in rows],
            "line": [row.line for row in rows],
        }
        | {column: [cell(row.values.get(column)) for row in rows] for column in config.slices}
    )


def require_columns(path: Path | str, columns: list[str], wanted: Sequence[tuple[str, str]]) -> None:
    """Check that a file has the columns that config keys name. Raises DataError with the nearest name."""
    for key, name in wanted:
        if name in columns:
            continue
        close = difflib.get_close_matches(name, columns, n=1, cutoff=0.5)
        guess = close[0] if close else _likely(key, columns)
        hint = f". Did you mean `{key}{' ' if key.startswith('--') else ': '}{guess}`?" if guess else ""
        raise DataError(path, f"no column {name!r} ({key}); columns found: {', '.join(columns)}{hint}")


def _likely(key: str, columns: list[str]) -> str | None:
    words = USUAL_COLUMNS.get(key.lstrip("-").removeprefix("data."), ())
    return next((c for word in words for c in columns if word in c.casefold()), None)


def matching_rows(rows: Iterable[Row], where: dict[str, str]) -> list[Row]:
    """Those in which every column of `where` has the given value."""
    return [row for row in rows if all(cell(row.values.get(column)) == value for column, value in where.items())]


def cell(value: Any) -> str:
    """A cell as the user wrote it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def texts_of(table: Table, rows: list[Row], column: str, key: str = "data.text") -> list[str]:
    """The texts of N rows. Raises DataError, which names the option `key`, where one is empty or no text."""
    wrong = [row for row in rows if not isinstance(row.values.get(column), str)]
    if wrong:
        found = type(wrong[0].values.get(column)).__name__.replace("NoneType", "nothing")
        raise _row_error(table, wrong, f"expected text in column {column!r}, found {found}; fill it or check {key}")
    empty = [row for row in rows if not row.values[column].strip()]
    if empty:
        raise _row_error(table, empty, f"the text in column {column!r} is empty; fill it or remove the row")
    return [row.values[column] for row in rows]


def _labels(table: Table, rows: list[Row], column: str) -> list[str]:
    empty = [row for row in rows if not cell(row.values.get(column)).strip()]
    if empty:
        raise _row_error(table, empty, f"the label in column {column!r} is empty; fill it or remove the row")
    return [cell(row.values[column]) for row in rows]


def _row_error(table: Table, rows: list[Row], message: str) -> DataError:
    others = f" ({len(rows) - 1} more such rows)" if len(rows) > 1 else ""
    return DataError(table.path, message + others, rows[0].line, unit=table.unit)


# ---- checks


def require_classes(path: Path, name: str, labels: Iterable[str]) -> None:
    """Check that a label column holds at least two classes. Raises DataError."""
    found = set(labels)
    if len(found) == 1:
        raise DataError(
            path,
            f"expected at least two classes in column {name!r}, found only {next(iter(found))!r}; "
            "add rows of another class or check data.label",
        )


def _check_classes(parts: dict[str, Dataset], config: DataConfig, known_labels: Sequence[str]) -> None:
    """Classes in what is not test: more than one, none too rare; the test part holds no other but known ones."""
    counts = Counter(column(parts["train"], "label"))
    path = config.train.path
    require_classes(path, config.label, [*counts, *known_labels])
    rare = sorted((number, label) for label, number in counts.items() if number < MIN_PER_CLASS)
    if rare:
        names = ", ".join(f"{label!r} ({number})" for number, label in rare[:5])
        more = f" and {len(rare) - 5} more" if len(rare) > 5 else ""
        raise DataError(
            path,
            f"expected at least {MIN_PER_CLASS} examples of every class, found {names}{more}; add examples, "
            "merge the class into another or remove it"
            + (f". Is {config.label!r} the label column?" if len(rare) > 5 else ""),
        )
    for name in ("validation", "test"):
        for label, line in (
            zip(column(parts[name], "label"), column(parts[name], "line"), strict=True) if name in parts else ()
        ):
            if label not in counts and label not in known_labels:
                source: SplitFile = getattr(config, name)
                raise DataError(
                    source.path,
                    f"the label {label!r} does not occur in the training part (labels there: {_listed(list(counts))}); "
                    "add training examples of it or remove the row",
                    line,
                    unit=unit_of(source.path),
                )


def _check_splits(splits: Splits, config: DataConfig) -> None:
    dropped = splits.counts["dropped_from_train"]
    why = f" ({dropped} were dropped: duplicates, or of a group, of the validation or test part)" if dropped else ""
    missing = sorted({*column(splits.validation, "label"), *column(splits.test, "label")} - set(splits.labels))
    if missing:
        raise DataError(
            config.train.path,
            f"no training example of {_listed(missing)} is left after splitting{why}; add examples, "
            "raise data.max_train_items, or check data.group",
        )
    if len(splits.labels) < 2:
        raise DataError(
            config.train.path, f"fewer than two classes are left for training after splitting{why}; add examples"
        )
    for name, part in (("validation", splits.validation), ("test", splits.test)):
        if not len(part):
            raise DataError(config.train.path, f"no item is left for the {name} part; add data or give a {name} file")


def _listed(labels: list[str]) -> str:
    shown = ", ".join(repr(label) for label in labels[:8])
    return shown + (f" and {len(labels) - 8} more" if len(labels) > 8 else "")


# ---- splitting


def _duplicate_counts(items: Dataset, exact: IntArray) -> dict[str, int]:
    labelled = set(zip(exact.tolist(), column(items, "label"), strict=True))
    labels_per_text = Counter(text for text, _ in labelled)
    return {
        "exact_duplicates": len(items) - len(labels_per_text),
        "texts_with_contradicting_labels": sum(number > 1 for number in labels_per_text.values()),
        "groups": len(set(column(items, "group"))),
    }


def _without_leaks(items: Dataset, counts: dict[str, int], config: DataConfig) -> dict[str, IntArray]:
    """Positions of each given part, less the items whose group a part before it holds.

    Training may repeat what the run of `start_from` has seen; a test part that does is refused.
    """
    part = np.array(column(items, "part"))
    groups = np.array(column(items, "group"))
    chosen = {name: np.flatnonzero(part == name) for name in (EARLIER,) if name in part}
    for name, barred in (("test", (EARLIER,)), ("validation", (EARLIER, "test")), ("train", ("test", "validation"))):
        own = part == name
        leaks = own & np.isin(groups, groups[np.isin(part, barred)])
        if name == "test" and leaks.any():
            raise _seen_before(items, np.flatnonzero(leaks), config)
        if name != "test":
            counts[f"dropped_from_{name}"] = int(leaks.sum())
        chosen[name] = np.flatnonzero(own & ~leaks)
    return chosen


def _seen_before(items: Dataset, leaks: IntArray, config: DataConfig) -> DataError:
    assert isinstance(config.test, SplitFile)
    line = column(items, "line")[int(leaks[0])]
    return DataError(
        config.test.path,
        f"the run of start_from has seen {len(leaks)} of the test items or duplicates of them, the first of "
        "them here; its score on them would flatter it: remove them from the test file",
        line,
        unit=unit_of(config.test.path),
    )


def _with_group(items: Dataset, groups: list[Any]) -> Dataset:
    return Dataset.from_dict(items[:] | {"group": groups})


def _cut(items: Dataset, pool: IntArray, fraction: float, seed: int, barred: IntArray) -> tuple[IntArray, IntArray]:
    """Cut a stratified fraction off the pool, whole groups only. A group's stratum is the set of its labels.

    Groups in `barred` stay in the pool; the fraction is of the others.
    """
    stay = np.isin(np.array(column(items, "group"))[pool], barred)
    kept, pool = pool[stay], pool[~stay]
    if not len(pool):  # `_check_splits` says so
        return kept, pool
    groups = np.array(column(items, "group"))[pool]
    labels = np.array(column(items, "label"))[pool]
    members = labels_of_groups(groups, labels)
    strata = number_by([tuple(sorted(names)) for names in members.values()])
    size = max(1, round(fraction * len(members)))
    cut = resample(list(members), replace=False, n_samples=size, stratify=strata, random_state=seed)
    cut = [*cut, *_of_missing_labels(members, cut, seed)]
    inside = np.isin(groups, cut)
    return np.sort(np.concatenate([kept, pool[~inside]])), pool[inside]


def labels_of_groups(groups: IntArray, labels: NDArray[Any]) -> dict[int, set[str]]:
    """The labels of every group, in order of first appearance; both arguments (N,)."""
    members: dict[int, set[str]] = {}
    for group, label in zip(groups.tolist(), labels.tolist(), strict=True):
        members.setdefault(group, set()).add(label)
    return members


def _of_missing_labels(members: dict[int, set[str]], cut: list[int], seed: int) -> list[int]:
    """One more group for every label that the cut lacks and that two groups or more have."""
    found = set().union(*(members[group] for group in cut))
    rng = np.random.default_rng(seed)
    more = []
    for label in sorted(set().union(*members.values()) - found):
        having = sorted(group for group, names in members.items() if label in names)
        more += [int(rng.choice(having))] if len(having) > 1 else []
    return more


def _limit(items: Dataset, pool: IntArray, most: int | None, seed: int, counts: dict[str, int]) -> IntArray:
    """At most `most` items, stratified by label."""
    if most is None or len(pool) <= most:
        return pool
    counts["left_out_by_max_train_items"] = len(pool) - most
    labels = np.array(column(items, "label"))[pool]
    kept: IntArray = resample(pool, replace=False, n_samples=most, stratify=labels, random_state=seed)
    return kept
