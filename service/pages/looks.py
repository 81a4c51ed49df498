"""What a look has found: a data check, an estimate or an explanation, for a page that shows it in place."""

from __future__ import annotations

import json
from typing import Any

from service import jobs
from service.context import Context
from service.database import Scope
from service.errors import missing
from service.keys import Caller
from service.kinds.look import look_dir
from service.pages.shown import ShownJob, shown_jobs
from service.tables import Job
from service.verified import intact_in


def look_and_figures(
    context: Context, caller: Caller, look_id: str, kind: jobs.Kind
) -> tuple[Job, ShownJob, dict[str, Any] | None]:
    """The look as its row, as a page says it, and its figures once it has succeeded. Raises ApiError 404."""
    with context.database.reading() as session:
        scope = Scope(session, caller.tenant_id)
        job = jobs.get(scope, look_id, kind)
        if job is None:
            raise missing("look", look_id, "look_not_found")
        (shown,) = shown_jobs(scope, [job])
    folder, name = look_dir(context.settings, job), f"{kind}.json"
    there = job.status == "succeeded" and (folder / name).is_file()
    return job, shown, json.loads(intact_in(folder, name).read_text(encoding="utf-8")) if there else None
