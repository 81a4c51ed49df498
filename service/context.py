"""What a request can reach: settings, database, job engine, live models. One per API process."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from service.database import Database
from service.engine import JobEngine
from service.inference.client import Inference
from service.limits import Limits
from service.quotas import LiveRows
from service.settings import ServiceSettings


@dataclass(frozen=True)
class Context:
    settings: ServiceSettings
    database: Database
    engine: JobEngine
    inference: Inference
    limits: Limits
    live_rows: LiveRows


async def context_of(request: Request) -> Context:
    """As a dependency of a route; async, since others are run by threads."""
    context: Context = request.app.state.context
    return context
