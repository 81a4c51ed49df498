"""An upload of training data -> what it is understood to be, and the JSONL file that `pipelines` trains on.

It runs in a child process with limits and reads what a stranger has sent: rows pass one at a time, and the first that
cannot be used ends it. A training file whose labels are answers to be generated, no classes, is refused.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from service.refused import INVALID_FILE, INVALID_VALUE, NOT_CLASSIFICATION, TOO_LARGE, UploadRefused
from service.training_forms import Form, choose_form
from service.upload_columns import nameable
from service.upload_rows import MOST_BYTES, Upload, open_upload

# Twice the longest label of the sets in benchmarks/DATA.md, 63 characters (EDOS); 46 % of the texts there are longer.
MAX_LABEL_CHARACTERS = 128
# Different labels by rows: 0.15 in 500 random rows of Banking77, above 0.99 where the labels are texts. Beyond this
# share a label has fewer than two rows on average, and training needs five of each.
MAX_LABEL_SHARE = 0.5
FEW_LABELS = 20  # up to here a share says nothing: 12 rows of a first try may have 7 labels
# Memory for the counts, and a confusion matrix that is still of use: 13 times Banking77, as many as ImageNet.
MAX_LABELS = 1000
_SHOWN = 5  # labels in a sentence
EXAMPLES, EXAMPLE_CHARACTERS = 5, 300  # rows that a page shows, of each so much of the text
_GENERATION = (
    "this looks like data for generating text, and only classification is trained here; name a column of classes in "
    "data.label, or shorten the answers to class names"
)
_FORMATS = {"jsonl": "JSONL", "csv": "CSV", "tsv": "TSV", "parquet": "Parquet"}


@dataclass(frozen=True)
class Understood:
    """What an upload was understood to be.

    Attributes:
        form: chat, prompt_completion, text_label, inputs_label or table.
        format: jsonl, csv, tsv or parquet.
        mapping: the columns that were read, as in a `data` section; a chat has none for text and label.
        guessed: keys of it that were found by the names of columns.
        rows: examples.
        labels: examples of each label, the most frequent first.
        sentence: all of this for people.
        examples: text and label of the first rows, cut.
        columns: of the file, those that a form can offer.
    """

    form: str
    format: str
    mapping: dict[str, Any]
    guessed: tuple[str, ...]
    rows: int
    labels: dict[str, int]
    sentence: str
    examples: tuple[dict[str, str], ...] = ()
    columns: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {name: list(getattr(self, name)) for name in ("guessed", "examples", "columns")}

    def section(self, prepared: Path) -> dict[str, Any]:
        """The `data` section of a run that trains on the prepared file."""
        section = {"train": str(prepared), "text": "text", "label": "label"}
        own = {key: key for key in ("id", "group") if key in self.mapping}
        return section | own | {key: self.mapping[key] for key in ("slices",) if key in self.mapping}


def prepare(source: Path, filename: str, mapping: Mapping[str, Any], target: Path, training: bool = True) -> Understood:
    """Read an upload and write its examples.

    Args:
        source: the stored upload; its name says nothing.
        filename: the client's name for it, which may say the format.
        mapping: the user's `data` section: columns under text, label, id and group, and a list of them under slices.
        target: a new JSONL file with text, label and, where they are mapped, id, group and each slice by its name.
        training: False for a validation file, which may have few rows of each class, or one class.

    Raises:
        UploadRefused: `invalid_training_file`, `not_classification_data`, `file_too_large`, or `invalid_value` for a
            mapping. No file is left at `target` then.
    """
    param = "training_file" if training else "validation_file"
    try:
        with open_upload(source, filename) as upload:
            return _prepared(upload, mapping, target, training)
    except UploadRefused as error:
        target.unlink(missing_ok=True)
        raise UploadRefused(error.message, error.code, error.param or param, error.line, error.columns) from None
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _prepared(upload: Upload, mapping: Mapping[str, Any], target: Path, training: bool) -> Understood:
    form, labels, left = _form(upload, mapping), _Labels(upload.name), MOST_BYTES
    first: list[dict[str, str]] = []
    with target.open("wb") as file:
        for row in upload.rows():
            try:
                text, label = form.read(row.values)
                labels.add(label)
                example = {"text": text, "label": label} | form.beside(row.values)
            except UploadRefused as error:
                raise _placed(error, upload, row.line) from None
            if len(first) < EXAMPLES:
                first.append({"text": text[:EXAMPLE_CHARACTERS], "label": label})
            left -= file.write(json.dumps(example, ensure_ascii=False).encode() + b"\n")
            if left < 0:
                size = f"{MOST_BYTES / 2**30:g} GiB"
                raise UploadRefused(f"{upload.name}: more than {size} of examples; upload less", TOO_LARGE)
    labels.check(training)
    return replace(_understood(upload, form, labels), examples=tuple(first), columns=tuple(nameable(upload.columns)))


def _form(upload: Upload, mapping: Mapping[str, Any]) -> Form:
    try:
        return choose_form(upload.columns, mapping)
    except UploadRefused as error:
        shown = tuple(nameable(upload.columns))
        raise UploadRefused(f"{upload.name}: {error.message}", error.code, error.param, columns=shown) from None


def _placed(error: UploadRefused, upload: Upload, line: int) -> UploadRefused:
    """A row that cannot be read makes the file invalid."""
    code = INVALID_FILE if error.code == INVALID_VALUE else error.code
    return UploadRefused(f"{upload.place(line)}: {error.message}", code, None, line)


@dataclass
class _Labels:
    """Counts of the labels, and whether they are classes."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def rows(self) -> int:
        return self.counts.total()

    def add(self, label: str) -> None:
        """Count one. Raises UploadRefused as soon as it is clear that these are no classes."""
        if len(label) > MAX_LABEL_CHARACTERS:
            size = f"the label has {len(label):,} characters, a class name at most {MAX_LABEL_CHARACTERS}"
            raise UploadRefused(f"{size}; {_GENERATION}", NOT_CLASSIFICATION)
        self.counts[label] += 1
        if len(self.counts) > MAX_LABELS:
            found = f"more than {MAX_LABELS:,} different labels in {self.rows:,} rows"
            raise UploadRefused(f"{found}; {_GENERATION}", NOT_CLASSIFICATION)

    def check(self, training: bool) -> None:
        """Whether all of them together can be trained on. Raises UploadRefused."""
        if not self.counts:
            raise UploadRefused(f"{self.name}: expected rows below the header, found none; add rows", INVALID_FILE)
        if not training:
            return
        if len(self.counts) == 1:
            only = f"found only {_shown(next(iter(self.counts)))}"
            raise UploadRefused(
                f"{self.name}: expected at least two classes, {only}; add rows of another class or name another label "
                "column in data.label",
                INVALID_FILE,
            )
        if len(self.counts) > max(FEW_LABELS, MAX_LABEL_SHARE * self.rows):
            found = f"{len(self.counts):,} different labels in {self.rows:,} rows, fewer than two rows for each"
            raise UploadRefused(
                f"{self.name}: {found}; {_GENERATION}. If these are classes, add rows of each", NOT_CLASSIFICATION
            )


# ---- for people


def _understood(upload: Upload, form: Form, labels: _Labels) -> Understood:
    counts = dict(labels.counts.most_common())
    kind = ("chat " if form.name == "chat" else "") + _FORMATS[upload.format]
    guessed = f" ({' and '.join(form.guessed)} guessed from the names of the columns)" if form.guessed else ""
    sentence = (
        f"{labels.rows:,} row{'s' * (labels.rows != 1)} of {kind}; text = {form.text}, label = {form.label}{guessed}; "
        f"{len(counts):,} class{'es' * (len(counts) != 1)}: {_histogram(counts)}"
    )
    return Understood(form.name, upload.format, form.mapping, form.guessed, labels.rows, counts, sentence)


def _histogram(counts: Mapping[str, int]) -> str:
    shown = [f"{_shown(label)} {number:,}" for label, number in list(counts.items())[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(counts) - _SHOWN:,} more" if len(counts) > _SHOWN else "")


def _shown(label: str) -> str:
    return label if label.isprintable() else repr(label)
