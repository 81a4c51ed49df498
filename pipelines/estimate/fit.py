"""`rootstock estimate --fit` on one page: settings that fit a budget, predicted from an estimate and then measured."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace

from pipelines.activation_store import ActivationStore
from pipelines.config import RunConfig
from pipelines.errors import BudgetError, ConfigError, RootstockError
from pipelines.estimate.apart import estimate_apart
from pipelines.estimate.candidates import Candidate, asked_for, candidates, predicted
from pipelines.estimate.estimate import estimate
from pipelines.records import Estimated, Event, Stage

TRIES = 4  # proposals that are measured
_UNITS = {"s": 1, "m": 60, "h": 3600}
Estimate = Callable[[RunConfig, Callable[[], bool], ActivationStore | None], Iterator[Event]]


@dataclass(frozen=True)
class Budget:
    """What a run may take: resident memory while it trains, in MiB, and seconds from data to finished directory."""

    memory_mib: float | None = None
    seconds: float | None = None

    def excess(self, memory: float, seconds: float) -> float:
        """The larger of the two shares that are taken; more than 1 does not fit."""
        limits = ((memory, self.memory_mib), (seconds, self.seconds))
        return max(taken / limit for taken, limit in limits if limit is not None)

    def fits(self, found: Estimated) -> bool:
        """Whether the upper ends of the intervals do."""
        return self.excess(*_upper(found)) <= 1

    def __str__(self) -> str:
        memory = None if self.memory_mib is None else f"{self.memory_mib:,.0f} MiB"
        return " and ".join(filter(None, [memory, None if self.seconds is None else f"{self.seconds:,.0f} s"]))


def budget_of(memory: float | None, time: str | None) -> Budget:
    """A budget as it is written on a command line: MiB; a number with s, m or h behind it. Raises ConfigError."""
    if memory is None and time is None:
        raise ConfigError("--fit: expected a budget, --memory MIB or --time such as 30m or both")
    seconds = None
    if time is not None:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", time.strip())
        seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
        if not seconds:
            raise ConfigError(f"--time: expected a number with its unit, such as 90s, 30m or 2h; found {time!r}")
    if memory is not None and not memory > 0:
        raise ConfigError(f"--memory: expected MiB above 0, found {memory:g}")
    return Budget(memory, seconds)


def fit(
    config: RunConfig,
    budget: Budget,
    stop: Callable[[], bool] = lambda: False,
    store: ActivationStore | None = None,
    again: Estimate = estimate_apart,
) -> Iterator[Event]:
    """Find settings that fit; the last event is their estimate, with what they change.

    Args:
        config, stop, store: as for `estimate`.
        again: measures a proposal.

    Raises:
        BudgetError: none was found.
        ConfigError, DataError, BackboneError, TrainingError, Interrupted: as `estimate` does.
    """
    first = yield from _estimated(estimate(config, stop, store))
    if budget.fits(first):
        yield first
        return
    left = candidates(config, first.figures, budget.memory_mib is not None, budget.seconds is not None)
    measured, nearest = [first], asked_for(config)
    for number in range(min(TRIES, len(left))):
        shares = {c: budget.excess(*_likely(config, c, nearest, first, measured[-1])) for c in left}
        fitting = [c for c in left if shares[c] <= 1]
        last = not fitting or number == TRIES - 1
        proposal = min(left, key=shares.__getitem__) if last else fitting[0]
        left.remove(proposal)
        changes = proposal.changes(config)
        yield Stage("fit", f"measuring {', '.join(changes)}")
        found = replace((yield from _estimated(again(proposal.applied(config), stop, store))), changes=changes)
        measured, nearest = [*measured, found], proposal
        if budget.fits(found):
            yield found
            return
        if last:
            break
    raise BudgetError(_refusal(budget, measured))


def _estimated(events: Iterator[Event]) -> Generator[Event, None, Estimated]:
    """Pass events on; the last one is returned."""
    for event in events:
        if isinstance(event, Estimated):
            return event
        yield event
    raise RootstockError("the process that measures has ended before it was done; run the command again")


def _likely(
    config: RunConfig, candidate: Candidate, nearest: Candidate, first: Estimated, found: Estimated
) -> tuple[float, float]:
    """Upper ends of memory and seconds as predicted, corrected by how the candidate that was measured last came out."""
    measured = _upper(found)
    own, theirs = (predicted(config, c, first.figures) for c in (candidate, nearest))
    return own[0] * measured[0] / theirs[0], own[1] * measured[1] / theirs[1]


def _upper(found: Estimated) -> tuple[float, float]:
    """Upper ends of the intervals of memory and of the seconds of the whole run."""
    return found.figures["peak_memory_mib"]["high"], found.figures["whole_seconds"]["high"]


def _refusal(budget: Budget, measured: list[Estimated]) -> str:
    """Names the cheapest that was measured, and what it needs."""
    cheapest = min(measured, key=lambda found: budget.excess(*_upper(found)))
    memory, seconds = _upper(cheapest)
    settings = f"{', '.join(cheapest.changes)} needs" if cheapest.changes else "the config as it is, needs"
    return (
        f"no settings were found for {budget}: the cheapest, {settings} up to {memory:,.0f} MiB and {seconds:,.0f} s; "
        "give it more, or train on fewer items (data.max_train_items)"
    )
