"""`rootstock explain` on one page: items -> what moved the model, a second opinion, what decided the regressions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.activation_store import ActivationStore
from pipelines.artifacts import refuse_existing
from pipelines.attributions import CAVEAT, GAP, METHOD, SMALL, Attribution, attribute
from pipelines.backbones import Backbone
from pipelines.baselines import load_baseline
from pipelines.baselines.logistic import LogisticRegressionBaseline
from pipelines.deciding_features import CAVEAT as FEATURES_CAVEAT
from pipelines.deciding_features import NO_NAMES, Decision, deciding_features
from pipelines.device import best_precision
from pipelines.durable import publish, staged, write_json
from pipelines.errors import Interrupted
from pipelines.explained_items import Item, items_of
from pipelines.nearest import nearest_items
from pipelines.occlusion import drops, rank_agreement
from pipelines.records import CLIENT, Event, Explained, Explanation, FloatArray, Stage
from pipelines.records import column as column_of
from pipelines.report import page_environment
from pipelines.saved_run import SavedRun

FEATURES = 10  # of a regression, for each text
STRONGEST = 8  # words of a text in the table of a page
QUICK = ("logistic-regression-manual", "logistic-regression-tfidf")  # their features have names


def explain(
    model_dir: Path,
    out: Path | None = None,
    texts: Sequence[str] = (),
    file: Path | None = None,
    column: str | None = None,
    limit: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    store: ActivationStore | None = None,
) -> Iterator[Event]:
    """Say which words moved the model's predictions, and which features decided the run's regressions.

    Args:
        model_dir: a complete run directory.
        out: directory for explain.json and explain.html, which must not exist.
        texts, file, column, limit: what is explained, see `items_of`; by default what the run's report lists.
        stop: asked before every item.
        store: of training items' states, among which the nearest are looked for.

    Yields:
        Events: an Explanation for every item, at last Explained.

    Raises:
        ConfigError, DataError, BackboneError, RunDirectoryError: see `errors`.
        Interrupted: after `stop`; nothing is kept.
    """
    if out is not None:
        refuse_existing(out)
    yield Stage("model", f"checking {model_dir}")
    run = SavedRun(model_dir)
    items = items_of(run, texts, file, column, limit)
    yield Stage("regressions", "what decided them")
    decisions = _decisions(run, [item.text for item in items])
    yield Stage("model", f"what moved it on {len(items)} text{'s' * (len(items) > 1)}")
    backbone = run.model()
    alike = _nearest(run, backbone, [item.text for item in items], store)
    explained: list[dict[str, Any]] = []
    for number, item in enumerate(items):
        if stop():
            raise Interrupted("stopped; nothing was kept")
        regressions = [_regression(run, name, None if own is None else own[number]) for name, own in decisions.items()]
        explained.append(_explained(item, backbone) | {"nearest": alike[number], "regressions": regressions})
        yield Explanation(number + 1, len(items), explained[-1])
    summary = _summary(run, explained)
    if out is not None:
        page = page_environment().get_template("explain.html.j2")
        html = page.render(title=run.path.name, items=[_shown(item) for item in explained], **summary)
        with staged(out) as work:
            write_json(work / "explain.json", summary | {"items": explained})
            (work / "explain.html").write_text(html, encoding="utf-8")
            publish(work, out, {"kind": "explanation"})
    yield Explained(out, summary)


# ---- the model


def _nearest(
    run: SavedRun, backbone: Backbone, texts: Sequence[str], store: ActivationStore | None
) -> list[list[dict[str, Any]]]:
    """For every text the items that the model was trained on and sees it most like."""
    seen = run.seen()
    trained = seen.select(np.flatnonzero(np.array(column_of(seen, "part")) == "train"))
    return nearest_items(backbone, trained, texts, best_precision(), store)


def _explained(item: Item, backbone: Backbone) -> dict[str, Any]:
    """One item as in explain.json; figures in logits."""
    found = attribute(backbone, item.text)
    fallen = drops(backbone, found)
    labels, text = backbone.labels, item.text
    named = zip(found.words, found.weights.tolist(), fallen.tolist(), strict=True)
    return {
        **asdict(item),
        "predicted": labels[found.towards],
        "probability": found.probability,
        "runner_up": labels[found.against],
        "score": found.score,
        "reference": found.reference,
        "gap": found.gap,
        "complete": found.complete,
        "steps": found.steps,
        "cut_tokens": found.cut,
        "agreement": _agreement(found, fallen),
        "words": [
            {"word": text[w.start : w.end], "start": w.start, "end": w.end, "attribution": added, "occlusion": fell}
            for w, added, fell in named
        ],
        "tokens": [
            {"token": text[slice(*span)], "start": span[0], "end": span[1], "attribution": added}
            for span, added in zip(found.spans, found.tokens.tolist(), strict=True)
            if span is not None
        ],
    }


def _agreement(found: Attribution, fallen: FloatArray) -> dict[str, Any]:
    """Rank correlation over the words, and whether both name the same word as the strongest."""
    same = len(fallen) > 0 and int(found.weights.argmax()) == int(fallen.argmax())
    return {"spearman": rank_agreement(found.weights, fallen), "same_top_word": same}


def _shown(item: dict[str, Any]) -> dict[str, Any]:
    """An item with what the page shows: words with weights, and the strongest with both opinions."""
    weighed = [(word["word"], word["attribution"]) for word in item["words"]]
    strongest = sorted(item["words"], key=lambda word: -abs(word["attribution"]))[:STRONGEST]
    return item | {"weighed": weighed, "strongest": strongest}


# ---- the regressions


def _decisions(run: SavedRun, texts: Sequence[str]) -> dict[str, list[Decision] | None]:
    """Of every saved regression, what it says of the N texts; None of one whose features have no names."""
    regressions = [name for name in run.baselines if name.startswith("logistic-regression")]
    return {name: _decision_of(run, name, texts) for name in regressions}


def _decision_of(run: SavedRun, name: str, texts: Sequence[str]) -> list[Decision] | None:
    if name.removesuffix(CLIENT) not in QUICK:
        return None
    baseline = load_baseline(run.path / "baselines" / name, None, "fp32")
    assert isinstance(baseline, LogisticRegressionBaseline)
    return deciding_features(baseline, texts, FEATURES)


def _regression(run: SavedRun, name: str, decision: Decision | None) -> dict[str, Any]:
    """What decided one regression on one item, as in explain.json."""
    head = {"name": name, "rival": name == run.report["verdict"]["rival"]}
    if decision is None:
        return head | {"predicted": None, "probability": None, "features": [], "note": NO_NAMES}
    told = asdict(decision)
    return head | {"predicted": run.labels[told.pop("target")], **told, "note": ""}


# ---- all items


def _summary(run: SavedRun, items: list[dict[str, Any]]) -> dict[str, Any]:
    """What holds for all: what was measured, how well it adds up, and what it is not."""
    ranks = [item["agreement"]["spearman"] for item in items if item["agreement"]["spearman"] is not None]
    complete = sum(item["complete"] for item in items)
    return {
        "sentence": f"Words add up to the change of the score within {GAP:.0%} in {complete} of {len(items)} texts",
        "model": run.path.name,
        "labels": list(run.labels),
        "method": METHOD,
        "tolerance": GAP,
        "tolerance_logits": SMALL,
        "complete": complete,
        "explained": len(items),
        "steps": [min(item["steps"] for item in items), max(item["steps"] for item in items)],
        "largest_gap": max(item["gap"] for item in items),
        "same_top_word": sum(item["agreement"]["same_top_word"] for item in items),
        "median_spearman": float(np.median(ranks)) if ranks else None,
        "caveat": CAVEAT,
        "features_caveat": FEATURES_CAVEAT,
    }
