"""What the commands that show something on a terminal share."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


def progress_bar(console: Console) -> Progress:
    """A bar with a description, a note (a field of the task) and the time that has passed; gone at the end."""
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True)


def plain(text: str) -> str:
    """Without control characters but line ends: a server must not write to a terminal as it likes."""
    return "".join(c for c in text if c.isprintable() or c == "\n")


def one_line(text: str) -> str:
    """Without control characters and line ends: what comes from data must not write to a terminal as it likes."""
    return plain(text).replace("\n", " ")
