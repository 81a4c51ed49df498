"""Numbers with units, for people."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """`42 s`, `3:05 min`, `2:10 h`."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    whole, unit = (round(seconds), "min") if round(seconds) < 3600 else (round(seconds / 60), "h")
    return f"{whole // 60}:{whole % 60:02d} {unit}"
