"""Rows -> the objects that clients see, in OpenAI's shapes. A field without a value is null, not absent."""

from __future__ import annotations

from typing import Any

from service.tables import File, Job, JobCheckpoint, JobEvent, Key, Model

JOB_STATUS = {"validating": "validating_files", "publishing": "running"}
LOOKS = {
    "columns": "data.columns",
    "check": "data.check",
    "probe": "probe",
    "estimate": "estimate",
    "explain": "explanation",
}
BATCH_STATUS = {
    "queued": "validating",
    "running": "in_progress",
    "publishing": "finalizing",
    "succeeded": "completed",
    "paused": "in_progress",
}


def file_object(file: File) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at),
        "expires_at": _seconds(file.expires_at),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def job_object(job: Job, organization: str, queue_depth: int | None = None) -> dict[str, Any]:
    """A fine-tuning job. `queue_depth`: jobs before it, where that was asked for."""
    asked, result, progress = job.request, job.result or {}, job.progress
    hyperparameters = asked["hyperparameters"]
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "model": asked["model"],
        "created_at": int(job.created_at),
        "finished_at": _seconds(job.finished_at),
        "fine_tuned_model": result.get("model"),
        "organization_id": organization,
        "result_files": result.get("files", []),
        "status": JOB_STATUS.get(job.status, job.status),
        "training_file": asked["training_file"],
        "validation_file": asked["validation_file"],
        "hyperparameters": hyperparameters,
        "trained_tokens": None,  # not counted: nothing is charged by them
        "error": job.error,
        "seed": asked["seed"],
        "estimated_finish": _seconds(progress.get("finish_at")) if job.status == "running" else None,
        "integrations": [],
        "metadata": job.labels,
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        "task": asked["config"]["task"],
        "labels": result.get("labels"),
        "baseline": result.get("baseline"),
        "report_file_id": result.get("report_file_id"),
        "steps_completed": progress.get("steps_completed"),
        "total_steps": progress.get("total_steps"),
        "stopping": job.stopping,
        "queue_depth": queue_depth,
        "priority": job.priority,
    }


def event_object(event: JobEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "object": "fine_tuning.job.event",
        "created_at": int(event.created_at),
        "level": event.level,
        "message": event.message,
        "type": event.type,
        "data": event.data,
    }


def checkpoint_object(checkpoint: JobCheckpoint, job: Job) -> dict[str, Any]:
    model = (job.result or {}).get("model") or f"ft:{job.request['model']}"
    return {
        "id": checkpoint.id,
        "object": "fine_tuning.job.checkpoint",
        "created_at": int(checkpoint.created_at),
        "fine_tuned_model_checkpoint": f"{model}:ckpt-step-{checkpoint.step}",
        "fine_tuning_job_id": checkpoint.job_id,
        "step_number": checkpoint.step,
        "metrics": checkpoint.metrics,
    }


def comparison_object(job: Job) -> dict[str, Any]:
    result = job.result or {}
    return {
        "id": job.id,
        "object": "comparison",
        "created_at": int(job.created_at),
        "finished_at": _seconds(job.finished_at),
        "status": JOB_STATUS.get(job.status, job.status),
        "models": job.request["models"],
        "file_id": job.request["file_id"],
        "report_file_id": result.get("report_file_id"),
        "verdict": result.get("verdict"),
        "error": job.error,
        "metadata": job.labels,
    }


def look_object(job: Job) -> dict[str, Any]:
    """A data check, probe, estimate or explanation."""
    result = job.result or {}
    return {
        "id": job.id,
        "object": LOOKS[job.kind],
        "created_at": int(job.created_at),
        "finished_at": _seconds(job.finished_at),
        "status": JOB_STATUS.get(job.status, job.status),
        "model": job.request.get("model"),
        "training_file": job.request.get("training_file") or job.request.get("file_id"),
        "report_file_id": result.get("report_file_id"),
        "sentence": result.get("sentence"),
        "error": job.error,
        "metadata": job.labels,
    }


def batch_object(job: Job) -> dict[str, Any]:
    result, progress, asked = job.result or {}, job.progress, job.request
    status = "cancelling" if job.status == "cancelled" and job.stopping else BATCH_STATUS.get(job.status, job.status)
    finished = _seconds(job.finished_at)
    return {
        "id": job.id,
        "object": "batch",
        "endpoint": asked["endpoint"],
        "model": asked.get("model"),
        "errors": _batch_errors(job),
        "input_file_id": asked["input_file_id"],
        "completion_window": asked["completion_window"],
        "status": status,
        "output_file_id": result.get("output_file_id"),
        "error_file_id": result.get("errors_file_id"),
        "created_at": int(job.created_at),
        "in_progress_at": _seconds(job.started_at),
        "expires_at": int(job.created_at) + 24 * 3600,
        "finalizing_at": finished if status == "completed" else None,
        "completed_at": finished if status == "completed" else None,
        "failed_at": finished if status == "failed" else None,
        "expired_at": None,
        "cancelling_at": finished if job.status == "cancelled" else None,
        "cancelled_at": finished if status == "cancelled" else None,
        "request_counts": result.get("counts") or _counts_so_far(progress),
        "usage": None,
        "metadata": job.labels,
    }


def model_object(model: Model, organization: str, aliases: list[str] | None = None) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": model.id,
        "object": "model",
        "created": int(model.created_at),
        "owned_by": organization,
        "base": model.base,
        "family": model.family,
        "labels": model.labels,
        "job_id": model.job_id,
    }
    return shown if aliases is None else shown | {"aliases": aliases}


def base_model_object(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "rootstock"}


def key_object(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "object": "key",
        "name": key.name,
        "hint": f"rsk_...{key.hint}",
        "scopes": key.scopes,
        "created_at": int(key.created_at),
        "expires_at": _seconds(key.expires_at),
        "revoked_at": _seconds(key.revoked_at),
        "last_used_at": _seconds(key.last_used_at),
    }


def _seconds(value: float | None) -> int | None:
    return None if value is None else int(value)


def _batch_errors(job: Job) -> dict[str, Any] | None:
    if job.error is None:
        return None
    problems = job.error.get("problems") or [job.error | {"line": None}]
    return {"object": "list", "data": problems}


def _counts_so_far(progress: dict[str, Any]) -> dict[str, int]:
    failed = progress.get("row_errors", 0)
    total = ((progress.get("plan") or {}).get("total")) or 0
    return {"total": total, "completed": progress.get("rows", 0) - failed, "failed": failed}
