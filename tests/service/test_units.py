"""Numbers with units."""

from __future__ import annotations

import pytest

from service.units import duration


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1:00 min"),
        (3599.4, "59:59 min"),
        (3600.0, "1:00 h"),
        (90_000.0, "25:00 h"),
    ],
)
def test_durations_have_the_unit_that_fits_them(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
