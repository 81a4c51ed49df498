"""Exit codes and the place that a data error names."""

from __future__ import annotations

import pytest

from pipelines import errors
from pipelines.errors import DataError, RootstockError


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ConfigError", 2),
        ("DataError", 1),
        ("BackboneError", 1),
        ("RunDirectoryError", 1),
        ("TrainingError", 1),
        ("Interrupted", 1),
    ],
)
def test_exit_codes(name: str, code: int) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, RootstockError)
    assert kind.exit_code == code


def test_every_error_of_the_module_is_in_the_table_above() -> None:
    kinds = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    documented = {name for name in kinds if f" {name} " in str(errors.__doc__)}
    assert kinds == documented


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ({}, "a.csv: broken"),
        ({"line": 3}, "a.csv, line 3: broken"),
        ({"line": 3, "column": 7}, "a.csv, line 3, column 7: broken"),
        ({"line": 3, "unit": "row"}, "a.csv, row 3: broken"),
    ],
)
def test_a_data_error_says_where(place: dict[str, int], text: str) -> None:
    assert str(DataError("a.csv", "broken", **place)) == text  # type: ignore[arg-type]
