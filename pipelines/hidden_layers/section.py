"""The report's section on the hidden layers: probes before fine-tuning, layers left out after it, and the map."""

from __future__ import annotations

from typing import Any

from pipelines.backbones import Backbone
from pipelines.config import RunConfig
from pipelines.device import Precision
from pipelines.hidden_layers.ablation import ablation
from pipelines.hidden_layers.depth import Advice, probe_layers
from pipelines.hidden_layers.map import representation_map
from pipelines.records import Splits

PROBED, LEFT_OUT, MAPPED = 1_000, 200, 500  # items at most: what a report can spare time for
CAVEAT = (
    "Probes are logistic regressions on the pretrained layers; they say where the task is easy to read, not where "
    "freezing is best: `rootstock probe` tries that. Leaving a layer out without training again shows what this model "
    "relies on, not what it could do without. The map shows two dimensions of many; the silhouette (-1 to 1) uses all."
)


def hidden_layers_section(
    config: RunConfig,
    splits: Splits,
    pretrained: Backbone,
    tuned: Backbone,
    precision: Precision,
    advice: dict[str, Any] | None,
) -> dict[str, Any]:
    """What the layers knew before fine-tuning, and what the model does with them after it.

    Args:
        config: resolved.
        pretrained, tuned: the backbone before, which after `start_from` is the earlier run's, and after.
        advice: how `freeze: auto` chose, where it did; it holds the probes.
    """
    settings = config.evaluation.bootstrap, config.training.seed
    if advice is None:
        advice = Advice(probe_layers(config, splits, pretrained, precision, PROBED), []).to_json()
    left_out = ablation(tuned, splits, precision, LEFT_OUT, *settings)
    return {
        "probe": advice,
        "chosen": bool(advice["short_runs"]),
        "ablation": left_out,
        "map": representation_map(pretrained, tuned, splits, precision, MAPPED, config.training.seed),
        "sentence": _sentence(advice, left_out),
        "caveat": CAVEAT,
    }


def _sentence(advice: dict[str, Any], left_out: dict[str, Any]) -> str:
    top, best = len(advice["layers"]) - 1, advice["best"]
    alone = f"A probe reads the classes best after layer {best} of {top}."
    read = advice["sentence"] if advice["short_runs"] else alone
    missed = [row for row in left_out["without"] if row["difference_ci"][1] < 0]
    if not missed:
        return (
            f"{read} No single layer is clearly needed by the fine-tuned model: no change without one is surely a loss."
        )
    most = min(missed, key=lambda row: row["difference"])
    low, high = (100 * bound for bound in most["difference_ci"])
    return (
        f"{read} The fine-tuned model relies most on layer {most['layer']}: without it, macro-F1 changes by "
        f"{100 * most['difference']:+.1f} points (95% interval {low:+.1f} to {high:+.1f})."
    )
