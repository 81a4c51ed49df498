"""Prometheus metrics: jobs by kind and state, workers that live, this process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Depends
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import Response

from service.context import Context, context_of
from service.database import Database
from service.rights import GuardedRoute
from service.tables import Job, Worker

router = APIRouter(route_class=GuardedRoute, tags=["health"])


@router.get("/metrics", response_class=Response)
def metrics(context: Annotated[Context, Depends(context_of)]) -> Response:
    """In Prometheus' text format; needs a key with the scope admin, since it counts all tenants' jobs."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(_Jobs(context.database))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Jobs:
    """What the database holds, counted when it is asked."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def collect(self) -> Iterator[Metric]:
        by_state = sa.select(Job.kind, Job.status, sa.func.count()).group_by(Job.kind, Job.status)
        oldest = sa.select(sa.func.min(Job.created_at)).where(Job.status == "queued")
        with self.database.reading() as session:
            counts = session.execute(by_state).all()
            waiting = session.scalar(oldest)
            workers = session.scalar(sa.select(sa.func.count()).select_from(Worker)) or 0
        jobs = GaugeMetricFamily("rootstock_jobs", "Jobs by kind and state", labels=["kind", "status"])
        for kind, status, number in counts:
            jobs.add_metric([kind, status], number)
        yield jobs
        age = time.time() - waiting if waiting else 0.0
        yield GaugeMetricFamily("rootstock_oldest_queued_seconds", "Age of the oldest queued job", age)
        yield GaugeMetricFamily("rootstock_workers", "Workers that show that they live", workers)
