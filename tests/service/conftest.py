"""A service in this process: a database, an API without a socket, no worker."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.api import create_app
from service.database import Database
from service.engine import JobEngine, prepare_tables
from service.inference.client import Inference
from service.keys import create_key
from service.settings import ServiceSettings, service_settings
from tests.service.postgres import database_url


@dataclass
class Service:
    """What a test needs of it. `api` calls as the tenant `one`."""

    settings: ServiceSettings
    database: Database
    engine: JobEngine
    api: TestClient
    key: str

    def caller(self, tenant: str = "one", **options: object) -> dict[str, str]:
        """Headers of a new key."""
        with self.database.writing() as session:
            return {"Authorization": f"Bearer {create_key(session, tenant, 'test', **options)[1]}"}  # type: ignore[arg-type]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An SQLite database with all tables."""
    made = Database(f"sqlite:///{tmp_path / 'rootstock.db'}")
    made.migrate()
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database of each kind with all our tables."""
    with database_url(request.param) as url:
        database = Database(url or f"sqlite:///{tmp_path / 'either.db'}")
        database.migrate()
        yield database
        database.close()


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with our tables and the engine's, to be copied."""
    path = tmp_path_factory.mktemp("empty") / "rootstock.db"
    made = Database(f"sqlite:///{path}")
    made.migrate()
    prepare_tables(made)
    made.close()
    return path


@pytest.fixture
def service(tmp_path: Path, empty: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("ROOTSTOCK_DATABASE_URL", "")
    settings = service_settings(tmp_path / "data")
    settings.data_dir.mkdir()
    shutil.copyfile(empty, settings.data_dir / "rootstock.db")
    database = Database(settings.database_url)
    engine = JobEngine(database)
    app = create_app(settings, database, engine, Inference(tmp_path / "run"))
    with database.writing() as session:
        key = create_key(session, "one", "test")[1]
    headers = {"Authorization": f"Bearer {key}"}
    with TestClient(app, "http://127.0.0.1", headers=headers, raise_server_exceptions=False) as api:
        yield Service(settings, database, engine, api, key)
    engine.close()
    database.close()
