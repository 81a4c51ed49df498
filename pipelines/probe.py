"""`rootstock probe` on one page: what every hidden layer knows of a task, and how many to freeze."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from markupsafe import Markup

from pipelines import charts
from pipelines.activation_store import ActivationStore
from pipelines.artifacts import refuse_existing
from pipelines.config import RunConfig
from pipelines.device import resolve_precision, start_accelerator
from pipelines.durable import publish, staged, write_json
from pipelines.errors import ConfigError
from pipelines.hidden_layers.depth import advise
from pipelines.records import Event, Probed, Stage
from pipelines.report import page_environment
from pipelines.run import read_splits
from pipelines.saved_run import starting_point
from pipelines.tune import prepare


def probe(
    config: RunConfig,
    out: Path | None = None,
    confirm: bool = True,
    stop: Callable[[], bool] = lambda: False,
    store: ActivationStore | None = None,
) -> Iterator[Event]:
    """Say which layers know the task, and try the depths that this suggests.

    Args:
        config: as for a fine-tuning; its depth is not used.
        out: directory for probe.json and probe.html, which must not exist.
        confirm: try the depths by short trainings.
        stop: asked between layers and steps.
        store: of hidden states, for the short trainings.

    Yields:
        Events, the last of which is Probed.

    Raises:
        ConfigError, DataError, BackboneError, RunDirectoryError, TrainingError: see `errors`.
        Interrupted: after `stop`; nothing is kept.
    """
    if out is not None:
        refuse_existing(out)
    config, start = starting_point(config)
    yield Stage("data", f"reading {config.data.train.path}")
    splits = read_splits(config, start)
    yield Stage("backbone", f"loading {config.start_from or config.backbone.name}")
    untouched = config.model_copy(update={"backbone": config.backbone.model_copy(update={"freeze": "auto"})})
    backbone = prepare(untouched, splits.labels, start).backbone
    if backbone.depth < 2:
        raise ConfigError(f"probe: expected a backbone of at least 2 hidden layers; {backbone.name} has 1")
    precision = resolve_precision(config.training.precision)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        accelerator = start_accelerator(precision, (), folder)
        parts = splits, backbone, start, precision, accelerator, folder, stop, store
        advice = yield from advise(config, *parts, confirm=confirm)
    if out is not None:
        page = page_environment().get_template("probe.html.j2")
        drawn = {"layers": Markup(charts.layers(advice["layers"]))}
        html = page.render(title=config.data.train.path.name, probe=advice, labels=splits.labels, charts=drawn)
        with staged(out) as work:
            write_json(work / "probe.json", advice)
            (work / "probe.html").write_text(html, encoding="utf-8")
            publish(work, out, {"kind": "probe"})
    yield Probed(out, advice)
