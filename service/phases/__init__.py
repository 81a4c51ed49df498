"""What the child process of a job does, by kind and phase: a folder and a request in, events out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from service.phases import batch, compare, finetune, look, table

Phase = Callable[[Path, Mapping[str, Any], Callable[[], bool]], Iterator[dict[str, Any]]]
PHASES: dict[tuple[str, str], Phase] = {
    ("fine-tune", "plan"): finetune.plan,
    ("fine-tune", "execute"): finetune.execute,
    ("compare", "plan"): compare.plan,
    ("compare", "execute"): compare.execute,
    ("batch", "plan"): batch.plan,
    ("batch", "execute"): batch.execute,
    ("table", "plan"): table.plan,
    ("table", "execute"): table.execute,
    ("columns", "plan"): look.plan_columns,
    ("columns", "execute"): look.columns,
    ("check", "plan"): look.plan,
    ("check", "execute"): look.check,
    ("probe", "plan"): look.plan,
    ("probe", "execute"): look.probe,
    ("estimate", "plan"): look.plan,
    ("estimate", "execute"): look.estimate,
    ("explain", "plan"): look.plan_nothing,
    ("explain", "execute"): look.explain,
}
