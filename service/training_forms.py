"""How the rows of an upload say text and label: as a chat, as prompt and completion, or in two columns."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.config import OWN_COLUMNS
from pipelines.tables import USUAL_COLUMNS
from service.bodies import content_text, filled, json_type, last_user_text, refused, turns
from service.refused import INVALID_FILE, INVALID_VALUE, UploadRefused
from service.upload_rows import listed

Values = dict[str, Any]
_NESTED = (list, dict, bytes)
_KEYS = ("text", "label", "id", "group", "slices")
_PAIRS = {
    "prompt_completion": ("prompt", "completion"),
    "text_label": ("text", "label"),
    "inputs_label": ("inputs", "label"),
}


@dataclass(frozen=True)
class Form:
    """What a row of a file means.

    Attributes:
        name: chat, prompt_completion, text_label, inputs_label, or table, whose columns the mapping names.
        text: where the text comes from, for people.
        label: where the label comes from.
        read: text and label of a row, neither blank. Raises UploadRefused.
        mapping: the `data` section that this amounts to; without text and label where no column holds them.
        guessed: keys of it that were found by the names of columns.
    """

    name: str
    text: str
    label: str
    read: Callable[[Values], tuple[str, str]]
    mapping: dict[str, Any]
    guessed: tuple[str, ...] = ()

    def beside(self, values: Values) -> dict[str, str]:
        """The other columns of a row that are wanted, under the names that they get. Raises UploadRefused."""
        named = {key: self.mapping[key] for key in ("id", "group") if key in self.mapping}
        named |= {column: column for column in self.mapping.get("slices", ())}
        return {name: _cell(values.get(column), column) for name, column in named.items()}


def choose_form(columns: Sequence[str], mapping: Mapping[str, Any]) -> Form:
    """What the columns of a file and the user's `data` section say together.

    Raises:
        UploadRefused: a section that cannot be used, a column that is missing, or none that is surely meant.
    """
    chosen = _checked(mapping, columns)
    if "text" in chosen or "label" in chosen:
        return _table(columns, chosen)
    if "messages" in columns:
        return Form("chat", "last user message", "assistant message", _read_chat, chosen)
    for name, (text, label) in _PAIRS.items():
        if text in columns and label in columns:
            read = _reader(text, label, name == "prompt_completion")
            return Form(name, text, label, read, {"text": text, "label": label} | chosen)
    return _table(columns, chosen)


def guessed_text(columns: Sequence[str]) -> str | None:
    """The column that surely holds the text, by its name; None where there is none."""
    try:
        return _guess("text", columns, [])
    except UploadRefused:
        return None


def word(value: Any) -> str:
    """A cell as the user wrote it; nothing is an empty word."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


# ---- rows


def _read_chat(values: Values) -> tuple[str, str]:
    messages = turns(values.get("messages"))
    place = f"messages[{len(messages) - 1}]"
    if messages[-1]["role"] != "assistant":
        found = messages[-1]["role"][:40]
        raise refused(place, f"expected the assistant's answer last, which is the label, found the role {found!r}")
    label = content_text(messages[-1].get("content"), f"{place}.content")
    return last_user_text(messages[:-1]), label.strip()


def _reader(text: str, label: str, strip: bool = False) -> Callable[[Values], tuple[str, str]]:
    def read(values: Values) -> tuple[str, str]:
        name = _label(values.get(label), label)
        return _text(values.get(text), text), name.strip() if strip else name

    return read


def _text(value: Any, column: str) -> str:
    if value is not None and not isinstance(value, str):
        raise refused(f"column {column!r}", f"expected text, found {json_type(value)}; is it the right column?")
    return filled(value or "", f"column {column!r}")


def _cell(value: Any, column: str) -> str:
    if isinstance(value, _NESTED):
        raise refused(f"column {column!r}", f"expected a word or a number, found {json_type(value)}")
    return word(value)


def _label(value: Any, column: str) -> str:
    place = f"column {column!r}"
    if isinstance(value, _NESTED):
        raise refused(place, f"expected one label, found {json_type(value)}; name a column with one class for each row")
    if isinstance(value, float) and math.isinf(value):
        raise refused(place, "expected a label, found a number that is too large")
    if not word(value).strip():
        raise refused(place, "the label is empty; fill it or remove the row")
    return word(value)


# ---- columns


def _checked(mapping: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """What the section names, in a fixed order. Keys without a value are as good as absent."""
    unknown = sorted(mapping.keys() - set(_KEYS))
    if unknown:
        raise _wrong(unknown[0], f"unknown key; expected one of {', '.join(_KEYS)}")
    chosen = {key: mapping[key] for key in _KEYS if mapping.get(key)}
    if "slices" in chosen:
        chosen["slices"] = _slices(chosen["slices"])
    for key, value in chosen.items():
        for name in value if key == "slices" else [value]:
            _require(key, name, columns)
    if "text" in chosen and chosen["text"] == chosen.get("label"):
        raise _wrong("label", f"expected another column than that of the text, found {chosen['label']!r} for both")
    return chosen


def _slices(value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise _wrong("slices", f"expected a list of columns, found {json_type(value)}")
    taken = [name for name in value if name in OWN_COLUMNS]
    if taken:
        raise _wrong("slices", f"items have a column {taken[0]!r} of their own; rename yours in the file")
    return list(value)


def _require(key: str, name: Any, columns: Sequence[str]) -> None:
    if not isinstance(name, str):
        raise _wrong(key, f"expected the name of a column, found {json_type(name)}")
    if name not in columns:
        close = difflib.get_close_matches(name, columns, n=1, cutoff=0.5)
        hint = f". Did you mean {close[0]!r}?" if close else ""
        raise _missing(key, f"no column {name!r}; columns found: {listed(columns)}{hint}")


def _table(columns: Sequence[str], chosen: dict[str, Any]) -> Form:
    """Columns that are named, or that have the usual names."""
    guessed = tuple(key for key in ("text", "label") if key not in chosen)
    found = dict(chosen)
    for key in guessed:
        found[key] = _guess(key, columns, list(found.values()))
    text, label = found["text"], found["label"]
    mapping = {key: found[key] for key in _KEYS if key in found}
    return Form("table", f"column {text!r}", f"column {label!r}", _reader(text, label), mapping, guessed)


def _guess(key: str, columns: Sequence[str], taken: Sequence[Any]) -> str:
    """The column with a usual name, or the only one whose name holds one."""
    words, free = USUAL_COLUMNS[key], [column for column in columns if column not in taken]
    exact = [column for name in words for column in free if column.casefold() == name]
    near = [column for column in free if any(len(name) > 1 and name in column.casefold() for name in words)]
    if exact or len(near) == 1:
        return (exact or near)[0]
    several = f"{listed(near)} may each be meant" if near else f"columns found: {listed(columns)}"
    raise _missing(key, f"name the column that holds the {key}; {several}")


def _wrong(key: str, problem: str) -> UploadRefused:
    return UploadRefused(f"data.{key}: {problem}", INVALID_VALUE, f"data.{key}")


def _missing(key: str, problem: str) -> UploadRefused:
    return UploadRefused(f"data.{key}: {problem}", INVALID_FILE, f"data.{key}")
