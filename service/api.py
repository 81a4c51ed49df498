"""The API process: routes, pages, error shapes, keys in front of everything. It never imports torch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI

from service import errors
from service.auth import Authenticated
from service.body_limit import BodyLimit
from service.context import Context
from service.database import Database
from service.engine import JobEngine
from service.inference.client import Inference
from service.limits import Limits
from service.openapi import document
from service.pages import ROUTERS
from service.pages.render import problem
from service.quotas import LiveRows
from service.rights import methods_of
from service.routes import batches, classify, comparisons, files, health, jobs, looks, metrics, models, stream, usage
from service.sessions import Sessions
from service.settings import ServiceSettings

DOCUMENTATION = (
    "Fine-tuning, batch classification and reports; files, jobs, batches and models as OpenAI's clients know them."
)


def create_app(settings: ServiceSettings, database: Database, engine: JobEngine, inference: Inference) -> FastAPI:
    """The ASGI application. Its owner closes what it was given."""

    live_rows = LiveRows(database, settings.limits.tenant_rows_per_day)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        live_rows.start()
        yield
        await inference.close()
        live_rows.close()

    app = FastAPI(
        title="Rootstock", version="1", description=DOCUMENTATION, lifespan=lifespan, docs_url=None, redoc_url=None,
        openapi_url="/openapi.json", redirect_slashes=False,
    )  # fmt: skip
    limits, sessions = Limits(settings.limits.calls_per_minute), Sessions(settings.data_dir)
    app.state.context = Context(settings, database, engine, inference, limits, live_rows)
    app.state.sessions = sessions
    for routes in (health, files, jobs, stream, comparisons, looks, batches, models, classify, usage, metrics):
        app.include_router(routes.router)
    for pages in ROUTERS:
        app.include_router(pages)
    app.openapi = partial(document, app)  # type: ignore[method-assign]
    errors.install(app, problem, methods_of)
    app.add_middleware(BodyLimit, upload_bytes=settings.limits.upload_mib << 20)
    app.add_middleware(Authenticated, database=database, limits=limits, sessions=sessions, hosts=settings.hosts)
    return app
