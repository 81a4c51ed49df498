"""Optuna's two parts: which training is hopeless, which setting is tried next (Akiba et al. 2019, arXiv 1907.10902).

Both are functions of the trainings that have ended, so that a resumed sweep decides as an undisturbed one: the study is
built anew from them, and the sampler has a seed of its own for every trial.

Pruning is the median rule (Golovin et al. 2017) with a margin: a training is stopped if even MARGIN more would leave
its best score below the median of what complete trainings had when as much of them was done. Seeds of one setting
differ by a point or two; without a margin half of all good settings would be lost to that. A fixed percentile instead
of the median would stop some even among equals, and more with every further seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pipelines.sweep.plan import Factor, Plan
from pipelines.sweep.runs import Run, Runs, percent_of

if TYPE_CHECKING:  # its import takes a second
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

STARTUP = 5  # complete trainings before any is stopped, and that have a score to compare with
WARMUP = 50  # percent of a training before it may be stopped: low learning rates begin slowly
MARGIN = 0.03  # macro-F1 that a hopeless training lacks of the median
DIGITS = 3  # of a number that Optuna proposes


@dataclass(frozen=True)
class Trial:
    """A setting that Optuna has proposed, and its trainings: all that it gets."""

    changes: dict[str, Any]
    runs: Sequence[Run]


def decided_by(plan: Plan) -> dict[str, str]:
    """The version of Optuna, where it has a say: another one may decide otherwise."""
    return {"optuna": str(_optuna().__version__)} if plan.prune or plan.method == "optuna" else {}


def hopeless(runs: Runs, setting: str, scores: Sequence[float], epochs: int) -> bool:
    """Whether a training should be stopped now.

    The setting that leads so far goes on whatever happens, so that one is always left.

    Args:
        runs: that have ended.
        setting: its name.
        scores: of the training, after every epoch so far.
        epochs: that it is to have.
    """
    percent = percent_of(len(scores), epochs)
    if percent >= 100 or setting == runs.leader:
        return False
    optuna = _optuna()
    study = optuna.create_study(direction="maximize")
    for run in runs.complete:
        reached = run.reached(percent)
        then = {} if reached is None else {percent: reached}
        study.add_trial(optuna.trial.create_trial(value=run.macro_f1, intermediate_values=then))
    pruner = optuna.pruners.MedianPruner(STARTUP, WARMUP, n_min_trials=STARTUP)
    state, best = optuna.trial.TrialState.RUNNING, max(scores) + MARGIN
    return bool(pruner.prune(study, optuna.trial.create_trial(state=state, intermediate_values={percent: best})))


def suggested(factors: Sequence[Factor], tried: Sequence[Trial], seeds: int, seed: int) -> dict[str, Any]:
    """What to try next, key -> value: a tree-structured Parzen estimator (Bergstra et al. 2011).

    Args:
        factors: what is varied.
        tried: all trials so far, in their order.
        seeds: trainings of a trial that was not dropped.
        seed: of the sweep.
    """
    optuna = _optuna()
    distributions = {factor.key: _distribution(factor) for factor in factors}
    sampler = optuna.samplers.TPESampler(seed=seed + len(tried))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in tried:
        study.add_trial(_frozen(trial, distributions, seeds))
    found: dict[str, Any] = study.ask(distributions).params
    return {factor.key: _rounded(found[factor.key], factor) for factor in factors}


def _frozen(trial: Trial, distributions: dict[str, BaseDistribution], seeds: int) -> FrozenTrial:
    """A trial as Optuna keeps it: its value is the mean over its seeds; a dropped one has what it had reached."""
    from optuna.trial import TrialState, create_trial

    known: dict[str, Any] = {"params": trial.changes, "distributions": distributions}
    scores = [max(run.scores) for run in trial.runs if run.state == "complete"]
    if len(scores) == seeds:
        return create_trial(value=sum(scores) / seeds, **known)
    reached = dict(trial.runs[-1].by_percent())
    return create_trial(state=TrialState.PRUNED, intermediate_values=reached, **known)


def _distribution(factor: Factor) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not factor.is_range:
        return CategoricalDistribution(factor.values)
    low, high = factor.values
    if isinstance(low, int):
        return IntDistribution(low, high, log=factor.logarithmic)
    return FloatDistribution(low, high, log=factor.logarithmic)


def _rounded(value: Any, factor: Factor) -> Any:
    """A number of a range that can be written down, within the range."""
    if not factor.is_range or isinstance(value, int):
        return value
    low, high = factor.values
    return min(max(float(f"{value:.{DIGITS}g}"), low), high)


def _optuna() -> ModuleType:
    """Optuna without its log, which would tell of every trial."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
