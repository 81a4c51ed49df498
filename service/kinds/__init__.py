"""What differs between kinds of jobs: what their child is asked, and how their result becomes visible."""

from __future__ import annotations

from service.kinds.base import Gone, Kind, Task
from service.kinds.batch import Batch
from service.kinds.compare import Compare
from service.kinds.finetune import FineTune
from service.kinds.look import Columns, Explain, Look
from service.kinds.table import Table

KINDS: dict[str, Kind] = {
    "fine-tune": FineTune(),
    "compare": Compare(),
    "batch": Batch(),
    "table": Table(),
    "columns": Columns(),
    "check": Look(),
    "probe": Look(),
    "estimate": Look(),
    "explain": Explain(),
}

__all__ = ["KINDS", "Gone", "Kind", "Task"]
