"""Lines of a child -> events, progress and checkpoints of its job, while its attempt is the newest."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from service import jobs, quotas
from service.database import Database
from service.tables import Job

PROGRESS_S = 1.0  # between two writes of how far a job is
EVENTS = ("error", "problems", "stage", "step", "validation", "checkpoint", "scored", "rows", "planned")
METRICS_S = 5.0  # between two metrics events of single steps


class Reporter:
    """Follows one child of one attempt.

    Attributes:
        error: what the child said before it failed: code, message, param.
        problems: of single lines of an upload, beside the error.
        over: a newer attempt exists, or the job was stopped; nothing is written any more.
    """

    def __init__(self, database: Database, job: Job, hidden: Mapping[str, str] | None = None) -> None:
        self.database, self.job, self.hidden = database, job, hidden or {}
        self.error: tuple[str, str, str | None] | None = None
        self.problems: list[dict[str, Any]] = []
        self.over = False
        self._metrics: dict[str, Any] = {}
        self._pending: dict[str, Any] = {}
        self._written = self._shown = 0.0

    def line(self, text: str) -> None:
        """One line of the child's standard output."""
        try:
            event = json.loads(self._public(text).replace("\\u0000", ""))  # PostgreSQL keeps no NUL
            name = event.pop("event")
        except (ValueError, AttributeError, TypeError, KeyError):
            return  # a library printed something
        if name in EVENTS and not self.over:
            try:
                getattr(self, f"_{name}")(event)
            except jobs.Fenced:
                self.over = True

    def _public(self, text: str) -> str:
        for place, shown in self.hidden.items():
            text = text.replace(place, shown)
        return text

    def flush(self) -> None:
        """Write what waits for its turn."""
        if self._pending and not self.over:
            self._progress({}, None, now=True)

    # ---- by event

    def _error(self, event: dict[str, Any]) -> None:
        self.error = (event["code"], event["message"], event.get("param"))

    def _problems(self, event: dict[str, Any]) -> None:
        self.problems = event["problems"]

    def _stage(self, event: dict[str, Any]) -> None:
        self._note(event["message"], {"stage": event["name"]})

    def _step(self, event: dict[str, Any]) -> None:
        self._metrics = {"step": event["step"], "train_loss": event["loss"], "learning_rate": event["learning_rate"]}
        remaining = {"finish_at": time.time() + event["remaining_s"]}
        done = {"steps_completed": event["step"], "total_steps": event["total_steps"], "epoch": event["epoch"]}
        text = None
        if time.monotonic() - self._shown > METRICS_S:
            self._shown = time.monotonic()
            text = f"Step {event['step']}/{event['total_steps']}: training loss={event['loss']:.4f}"
        self._progress(done | remaining | self._metrics, text, now=text is not None)

    def _validation(self, event: dict[str, Any]) -> None:
        self._metrics |= {
            "step": event["step"],
            "valid_loss": event["loss"],
            "valid_accuracy": event["accuracy"],
            "valid_macro_f1": event["macro_f1"],
        }
        text = f"Epoch {event['epoch']:g}: validation loss={event['loss']:.4f}, macro-F1={event['macro_f1']:.3f}"
        self._progress(self._metrics, text, now=True)

    def _checkpoint(self, event: dict[str, Any]) -> None:
        with self.database.writing() as session:
            job = jobs.fenced(session, self.job.id, self.job.attempt)
            jobs.note_checkpoint(session, job, event["step"], self._metrics | {"step": event["step"]})

    def _scored(self, event: dict[str, Any]) -> None:
        data = {"system": event["name"], "accuracy": event["accuracy"], "macro_f1": event["macro_f1"]}
        self._note(f"{event['name']}: test accuracy {event['accuracy']:.3f}, macro-F1 {event['macro_f1']:.3f}", data)

    def _rows(self, event: dict[str, Any]) -> None:
        remaining = event["remaining_s"]
        finish = {} if remaining is None else {"finish_at": time.time() + remaining}
        counts = {"rows": event["rows"], "row_errors": event["errors"], "rows_per_second": event["rows_per_second"]}
        with self.database.writing() as session:
            job = jobs.fenced(session, self.job.id, self.job.attempt)
            job.idle_attempts = 0  # committed rows are as good as a checkpoint
            quotas.count(session, job.tenant_id, quotas.ROWS, max(0, event["rows"] - job.progress.get("rows", 0)))
            jobs.note_progress(session, job, counts | finish, None)

    def _planned(self, event: dict[str, Any]) -> None:
        self._note(event["message"], event.get("data"))
        self._progress({"plan": event.get("data")}, None, now=True)

    # ---- writing

    def _note(self, message: str, data: dict[str, Any] | None = None) -> None:
        with self.database.writing() as session:
            jobs.note(session, jobs.fenced(session, self.job.id, self.job.attempt), message, data)

    def _progress(self, values: dict[str, Any], text: str | None, now: bool = False) -> None:
        self._pending |= values
        if not now and time.monotonic() - self._written < PROGRESS_S:
            return
        with self.database.writing() as session:
            job = jobs.fenced(session, self.job.id, self.job.attempt)
            jobs.note_progress(session, job, self._pending, text)
        self._pending, self._written = {}, time.monotonic()
