"""A copy of all that a service keeps, made while it runs, and a service made of such a copy.

A backup is the database as of one moment, then every file that it names: content never changes, and clean-up waits
meanwhile. What can be made anew is left out: folders of jobs that are on their way (they begin again), hidden states,
and the secret of sessions (people sign in again). What was deleted or revoked after the backup is back.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pipelines.durable import publish, staged, sync, verify
from pipelines.errors import RootstockError
from service import jobs
from service.database import Database
from service.settings import ServiceSettings
from service.tables import Job, Worker

KEPT = ("files", "models", "comparisons", "looks", "batches")  # of a tenant's folder
SQLITE, POSTGRESQL = "rootstock.db", "rootstock.pgdump"  # how the database is called in a backup
LOCK = "backup.lock"


@contextmanager
def nothing_is_removed(settings: ServiceSettings) -> Iterator[None]:
    """Within it, clean-up removes nothing; waits for one that is under way."""
    with (settings.data_dir / LOCK).open("a+") as lock:  # some file systems want a reader's lock on what can be read
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


@contextmanager
def removing(settings: ServiceSettings) -> Iterator[bool]:
    """Whether clean-up may remove something: not while a backup is made."""
    with (settings.data_dir / LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def back_up(settings: ServiceSettings, out: Path) -> dict[str, Any]:
    """Write a backup; returns its manifest.

    Raises:
        RootstockError: something stands at `out`, or the database cannot be dumped.
        OSError: a full disk; nothing half-written stays.
    """
    if out.exists():
        raise RootstockError(f"{out}: exists already; choose another place for the backup")
    with nothing_is_removed(settings), staged(out) as work:
        work.chmod(0o700)  # content of all tenants
        _dump(settings, work)
        for folder in _folders(settings.data_dir):
            for path in (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
                copy = work / path.relative_to(settings.data_dir)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
        publish(work, out, {"kind": "backup"})
    return verify(out)


def restore(settings: ServiceSettings, backup: Path) -> int:
    """Make a service's directory of a backup, every file checked; returns how many jobs begin again.

    Raises:
        RootstockError: no backup, a damaged one, one of another kind of database, or something stands there already. On
            PostgreSQL, a database that was filled before something failed has to be made anew.
    """
    manifest = verify(backup)
    if manifest.get("kind") != "backup":
        raise RootstockError(f"{backup}: not a backup of a service")
    name = SQLITE if settings.database_url.startswith("sqlite") else POSTGRESQL
    if not (backup / name).exists():
        raise RootstockError(
            f"{backup}: was made of the other kind of database; expected {name}: set ROOTSTOCK_DATABASE_URL accordingly"
        )
    if settings.data_dir.exists() and any(settings.data_dir.iterdir()):
        raise RootstockError(f"{settings.data_dir}: is not empty; choose another --data-dir for the restored service")
    if settings.data_dir.is_mount():
        raise RootstockError(f"{settings.data_dir}: is a mount point, which cannot be replaced; name a directory in it")
    with staged(settings.data_dir) as work:
        work.chmod(0o700)
        for path in manifest["sha256"]:
            copy = work / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(backup / path, copy)
            sync(copy)
        if name == SQLITE:
            url = f"sqlite:///{work / SQLITE}"
        else:
            url = settings.database_url
            _load(url, work / POSTGRESQL)
            (work / POSTGRESQL).unlink()
        begun = _forget_workers(url)
        for folder in (*(path for path in work.rglob("*") if path.is_dir()), work):
            sync(folder)
        work.rename(settings.data_dir)
        sync(settings.data_dir.parent)
    return begun


def _folders(data_dir: Path) -> Iterator[Path]:
    for kept in KEPT:
        yield from data_dir.glob(f"tenants/*/{kept}")


def _dump(settings: ServiceSettings, work: Path) -> None:
    url = sa.make_url(settings.database_url)
    if url.get_backend_name() == "sqlite":
        with (
            closing(sqlite3.connect(f"{Path(str(url.database)).absolute().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(work / SQLITE)) as copy,
        ):
            source.backup(copy)
        return
    _postgresql("pg_dump", settings.database_url, "--format=custom", f"--file={work / POSTGRESQL}")


def _load(url: str, dump: Path) -> None:
    """Fill an empty database. Raises RootstockError for one that is not."""
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    try:
        tables = sa.inspect(engine).get_table_names()
    finally:
        engine.dispose()
    if tables:
        raise RootstockError(f"the database at ROOTSTOCK_DATABASE_URL is not empty: it has the table {tables[0]}")
    _postgresql("pg_restore", url, "--exit-on-error", "--single-transaction", str(dump))


def _postgresql(program: str, url: str, *arguments: str) -> None:
    """Run a tool of PostgreSQL's. Raises RootstockError in the words of the tool."""
    place = sa.make_url(url)
    address = place._replace(drivername="postgresql", password=None).render_as_string(hide_password=False)
    environment = os.environ | ({"PGPASSWORD": str(place.password)} if place.password else {})
    command = [program, "--no-owner", "--no-privileges", f"--dbname={address}", *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise RootstockError(f"{program}: not found; install the client programs of PostgreSQL") from None
    if done.returncode:
        raise RootstockError(f"{program}: {done.stderr.strip()[-2000:]}")


def _forget_workers(url: str) -> int:
    """Jobs that were on their way wait again: their workers are not here. Returns how many."""
    database = Database(url)
    try:
        database.migrate()
        with database.writing() as session:
            owners = set(session.scalars(sa.select(Job.owner).where(Job.owner.is_not(None))))
            released = [job for owner in owners if owner for job in jobs.release(session, owner, blamed=False)]
            session.execute(sa.delete(Worker))
            return sum(job.status in jobs.ACTIVE for job in released)
    finally:
        database.close()
