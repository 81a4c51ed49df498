"""Everything that Rootstock raises on purpose. A message says what was expected, what was found and what to do.

::

    RootstockError            exit code 1
    ├── ConfigError           exit code 2: the config or the command line cannot be used
    ├── DataError             a data file, with file, line and column where they are known
    ├── BackboneError         weights or tokenizer: not found, not trusted, not supported
    ├── RunDirectoryError     a run directory that exists, is incomplete, in use or changed
    ├── TrainingError         the optimisation itself failed: a loss that is not a number, no memory
    ├── StoreError            hidden states cannot be kept: disk full, read-only; a run goes on without
    ├── BudgetError           no settings were found that fit into the memory or time that is given
    └── Interrupted           stopped on request; a checkpoint was kept
"""

from __future__ import annotations

from pathlib import Path


class RootstockError(Exception):
    """Base class; `exit_code` is what the command line returns."""

    exit_code = 1


class ConfigError(RootstockError):
    """The config or the command line cannot be used."""

    exit_code = 2


class DataError(RootstockError):
    """A data file cannot be used.

    Args:
        path: the file (or folder).
        message: expected, found and next step, in one sentence or two.
        line: 1-based line of a text file, or row of a binary one.
        column: 1-based column on that line, where it is known.
        unit: what `line` counts, "line" or "row".
    """

    def __init__(
        self, path: Path | str, message: str, line: int | None = None, column: int | None = None, unit: str = "line"
    ) -> None:
        where = str(path)
        if line is not None:
            where += f", {unit} {line}"
        if column is not None:
            where += f", column {column}"
        super().__init__(f"{where}: {message}")


class BackboneError(RootstockError):
    """Weights or a tokenizer are missing, not trusted or not supported."""


class RunDirectoryError(RootstockError):
    """A run directory exists already, is incomplete, in use or not what it says."""


class TrainingError(RootstockError):
    """The optimisation failed: the loss is not a number, or memory ran out."""


class StoreError(RootstockError):
    """Hidden states cannot be kept. A run goes on without the store and says so."""


class BudgetError(RootstockError):
    """No settings were found that fit a budget; the message says what the cheapest needs."""


class Interrupted(RootstockError):
    """Training was asked to stop; the message says how to go on."""
