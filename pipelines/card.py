"""The model card: README.md of a run directory, with metadata that the hub and other tools read."""

from __future__ import annotations

from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from pipelines.config import RunConfig

_CARD = """---
{metadata}
---

# {title}

A text classifier with the classes {labels}, fine-tuned by Rootstock from `{backbone}` ({freeze}).

## Was fine-tuning worth it?

{sentence}
{warnings}
| system | accuracy (95% interval) | macro-F1 (95% interval) |
|---|---|---|
{rows}

Measured on {n_test} test items that share no duplicate with the {n_train} training and {n_validation} validation items.
The details are in `report.html` and `report.json`.

## Use

```python
from transformers import pipeline

classify = pipeline("text-classification", model="model", truncation=True)  # cuts at {max_length} tokens
classify("some text")
```

## Limits

The figures hold for texts like those of the test part. The model has learned the labels as they were given, errors and
biases included; look at the worst classes in the report before you rely on it.
"""


def model_card(report: dict[str, Any], config: RunConfig, title: str) -> str:
    """Markdown with a YAML head. Labels and names are escaped for Markdown tables and code."""
    main = next(system for system in report["systems"] if system["name"] == report["main"])
    results = [
        EvalResult(
            task_type=config.task,
            dataset_type="user-data",
            dataset_name="test part",
            metric_type=name,
            metric_value=round(main["metrics"][key], 4),
        )
        for name, key in (("accuracy", "accuracy"), ("f1", "macro_f1"))
    ]
    metadata = ModelCardData(
        model_name=title,
        base_model=report["backbone"]["name"] if report["backbone"]["revision"] else None,  # not a local path
        library_name="transformers",
        pipeline_tag=config.task,
        tags=["rootstock"],
        metrics=["accuracy", "f1"],
        eval_results=results,
    )
    return _CARD.format(
        metadata=metadata.to_yaml(),
        title=_plain(title),
        labels=", ".join(f"`{_plain(label)}`" for label in report["labels"]),
        backbone=_plain(report["backbone"]["name"]),
        freeze=report["freeze_sentence"],
        sentence=_plain(report["verdict"]["sentence"]),
        warnings="".join(f"\n- {_plain(warning)}" for warning in report["verdict"]["warnings"]) + "\n",
        rows="\n".join(_row(system) for system in report["systems"]),
        max_length=report["max_length"],
        **{name: f"{report[name]:,}" for name in ("n_train", "n_validation", "n_test")},
    )


def _row(system: dict[str, Any]) -> str:
    cells = []
    for name in ("accuracy", "macro_f1"):
        low, high = system["metrics"][f"{name}_ci"]
        cells.append(f"{system['metrics'][name]:.3f} ({low:.3f} to {high:.3f})")
    return f"| {_plain(system['name'])} | {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Text that cannot open Markdown or HTML, nor turn the direction of what follows; joiners of scripts are kept."""
    shown = "".join(c for c in " ".join(text.split()) if c.isprintable() or c in "\u200c\u200d")
    return shown.replace("`", "'").replace("<", "‹").replace(">", "›").replace("|", "¦")
