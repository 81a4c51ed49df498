"""`rootstock check` on one page: classes, repeats, languages, personal data, lengths, label errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets

from pipelines.activation_store import ActivationStore
from pipelines.artifacts import refuse_existing
from pipelines.backbones import load_text_backbone
from pipelines.baselines.embeddings import EmbeddingFeatures
from pipelines.check.classes import classes
from pipelines.check.cleaned import refuse_output, write_clean_copy
from pipelines.check.findings import Finding, Items, without_personal_data
from pipelines.check.languages import languages
from pipelines.check.lengths import lengths
from pipelines.check.personal import personal_data
from pipelines.check.repeats import contradictions, duplicates, leaks
from pipelines.check.suspects import suspects
from pipelines.config import DataConfig, RunConfig, SplitFile
from pipelines.data import read_items, require_classes
from pipelines.device import resolve_precision
from pipelines.durable import publish, staged, write_json
from pipelines.errors import Interrupted
from pipelines.records import Checked, Event, Stage, column
from pipelines.report import page_environment
from pipelines.saved_run import starting_point

PARTS = ("train", "validation", "test")
KEPT = 1000  # places of a finding in check.json; the page shows 20


def check(
    config: RunConfig,
    out: Path | None = None,
    clean: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
    store: ActivationStore | None = None,
) -> Iterator[Event]:
    """Look for what no model can overcome, before anything is trained.

    Args:
        config: its data and backbone sections and `start_from` count; parts given as fractions are left alone.
        out: directory for check.json and check.html, which must not exist.
        clean: new file for the training part without repeats and leaks; `<clean>.removed.jsonl` lists what is not in
            it, and why.
        stop: asked between the checks.
        store: of embeddings.

    Yields:
        Events, the last of which is Checked.

    Raises:
        ConfigError, DataError, BackboneError, RunDirectoryError: see `errors`.
        Interrupted: after `stop`; nothing is kept.
    """
    if out is not None:
        refuse_existing(out)
    if clean is not None:
        refuse_output(clean, config.data.train.path, out)
    config, start = starting_point(config)
    known = () if start is None else start.labels
    yield Stage("data", f"reading {config.data.train.path}")
    items = Items(_read(config.data, known))
    findings: list[Finding] = []
    for what, step in _steps(config, items, known, store).items():
        yield Stage("check", what)
        findings += step()
        if stop():
            raise Interrupted("stopped; nothing was kept")
    checks = [_as_json(finding) for finding in without_personal_data(findings)]
    if clean is not None:
        yield Stage("clean", f"writing {clean}")
        checks.append(_as_json(write_clean_copy(clean, config.data.train, findings)))
    if out is not None:
        page = page_environment().get_template("check.html.j2")
        html = page.render(title=config.data.train.path.name, items=_counts(items), checks=checks)
        with staged(out) as work:
            found = {"sentence": _sentence(checks), "items": _counts(items), "checks": checks}
            write_json(work / "check.json", found)
            (work / "check.html").write_text(html, encoding="utf-8")
            publish(work, out, {"kind": "check"})
    yield Checked(out, _counts(items), checks)


def _steps(
    config: RunConfig, items: Items, known: Sequence[str], store: ActivationStore | None
) -> dict[str, Callable[[], list[Finding]]]:
    """What is looked for, cheapest first; `known` are the labels of the run at `start_from`."""
    seed, most = config.training.seed, config.data.max_length
    backbone = cache(lambda: load_text_backbone(config.backbone, sorted(set(items.labels)), most, seed))

    def doubted() -> list[Finding]:
        precision = resolve_precision(config.training.precision)
        texts = [items.texts[i] for i in items.of("train")]
        return [suspects(items, EmbeddingFeatures(backbone(), precision, store).fit_transform(texts), seed)]

    return {
        "class counts": lambda: [classes(items, known)],
        "duplicates, leaks, contradictions": lambda: [duplicates(items), leaks(items), contradictions(items)],
        "languages": lambda: [languages(items)],
        "personal data": lambda: [personal_data(items)],
        "lengths": lambda: [lengths(items, backbone())],
        "label errors": doubted,
    }


def _read(data: DataConfig, known: Sequence[str]) -> Dataset:
    """Items of all parts that are files. Raises DataError for one without items, or for a single class with `known`."""
    parts = []
    for name in PARTS:
        source = getattr(data, name)
        if isinstance(source, SplitFile):
            part = read_items(source, data)
            parts.append(Dataset.from_dict(part[:] | {"part": [name] * len(part)}))
    require_classes(data.train.path, data.label, [*column(parts[0], "label"), *known])
    return concatenate_datasets(parts)


def _sentence(checks: list[dict[str, Any]]) -> str:
    """What stands out, by name."""
    named = {level: [check["name"] for check in checks if check["level"] == level] for level in ("problem", "note")}
    told = [f"{level}s: {', '.join(names)}" for level, names in named.items() if names]
    return "; ".join(told).capitalize() or "Nothing stands out"


def _counts(items: Items) -> dict[str, int]:
    return {part: len(items.of(part)) for part in PARTS if part in items.parts}


def _as_json(finding: Finding) -> dict[str, Any]:
    """A finding as in check.json."""
    return asdict(finding) | {"found": len(finding.places), "places": [asdict(p) for p in finding.places[:KEPT]]}
