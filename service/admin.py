"""`rootstock keys`, `audit`, `backup`, `restore`: the service on this machine, straight in its database."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.errors import ConfigError, RootstockError

if TYPE_CHECKING:  # the database's libraries are loaded by the commands that need them
    from service.database import Database

keys = typer.Typer(help="API keys of the service on this machine.", no_args_is_help=True)
audit = typer.Typer(help="Who changed what in the service on this machine.", no_args_is_help=True)
DataDir = Annotated[Path | None, typer.Option(help="the service's directory; default: as for `rootstock serve`")]


@keys.command("create")
def create(
    name: Annotated[str, typer.Option(help="what it is for")] = "key",
    tenant: Annotated[str, typer.Option(help="account; made where it does not exist")] = "default",
    scope: Annotated[list[str] | None, typer.Option(help="such as models:read; default: all but admin")] = None,
    days: Annotated[float | None, typer.Option(min=0.001, help="until it expires; default: never")] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it, once."""
    from service.keys import SCOPES, create_key

    expires = None if days is None else time.time() + days * 86400
    if not (0 < len(name) <= 64 and 0 < len(tenant) <= 64 and name.isprintable() and tenant.isprintable()):
        raise ConfigError("--name and --tenant: expected 1 to 64 printable characters")
    with _database(data_dir) as database, database.writing() as session:
        _, text = create_key(session, tenant, name, scope or SCOPES[:-1], expires)
    print(text)


@keys.command("list")
def list_keys(
    data_dir: DataDir = None, as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False
) -> None:
    """All keys, without their text."""
    import sqlalchemy as sa

    from service.client import showing
    from service.objects import key_object
    from service.tables import Key, Tenant

    with _database(data_dir) as database, database.reading() as session:
        found = session.execute(sa.select(Key, Tenant.name).join(Tenant).order_by(Key.seq)).all()
    rows = [key_object(key) | {"tenant": tenant} for key, tenant in found]
    columns = ("id", "tenant", "name", "hint", "scopes", "expires_at", "revoked_at", "last_used_at")
    print(json.dumps(rows, indent=2)) if as_json else showing.table(rows, columns)


@keys.command("rotate")
def rotate_key(
    id: str,
    overlap: Annotated[float, typer.Option(min=0, metavar="HOURS", help="for which the old key is good too")] = 24.0,
    data_dir: DataDir = None,
) -> None:
    """Make a key that may do the same, print it, once, and end the old one after a while."""
    from service.keys import rotate

    with _database(data_dir) as database, database.writing() as session:
        text = rotate(session, id, overlap * 3600)
        if text is None:
            raise RootstockError(f"{id}: no such key, or it has ended; `rootstock keys list` names them")
    print(text)


@keys.command("revoke")
def revoke_key(id: str, data_dir: DataDir = None) -> None:
    """End a key; running servers notice within a second."""
    from service.keys import revoke

    with _database(data_dir) as database, database.writing() as session:
        if not revoke(session, id):
            raise RootstockError(f"{id}: no such key, or it was revoked already; `rootstock keys list` names them")


def backup(out: Annotated[Path, typer.Argument(help="new directory")], data_dir: DataDir = None) -> None:
    """Copy all that the service on this machine keeps, while it runs."""
    from service.backup import back_up
    from service.settings import service_settings

    with _database(data_dir):  # there is one
        manifest = back_up(service_settings(data_dir), out)
    print(f"{out}: {len(manifest['sha256']):,} files, each with its sha256 in manifest.json")


def restore(backup: Annotated[Path, typer.Argument(help="of `rootstock backup`")], data_dir: DataDir = None) -> None:
    """Make the directory of a service of a backup; start `rootstock serve` on it afterwards."""
    from service.backup import restore as run
    from service.settings import service_settings

    settings = service_settings(data_dir)
    begun = run(settings, backup)
    print(f"{settings.data_dir}: restored; {begun:,} jobs that were on their way begin again")


@audit.command("export")
def export(
    tenant: Annotated[str | None, typer.Option(help="account; default: all")] = None,
    since: Annotated[datetime | None, typer.Option(help="from this moment on, UTC")] = None,
    data_dir: DataDir = None,
) -> None:
    """Print who changed what as JSON lines, oldest first."""
    import sqlalchemy as sa

    from service.audit import exported
    from service.tables import Tenant

    with _database(data_dir) as database, database.reading() as session:
        owner = session.scalars(sa.select(Tenant.id).where(Tenant.name == tenant)).one_or_none() if tenant else None
        if tenant and owner is None:
            raise RootstockError(f"--tenant: no such account: {tenant}; `rootstock keys list` names them")
        for line in exported(session, owner, since.replace(tzinfo=UTC).timestamp() if since else 0.0):
            print(json.dumps(line))


@contextmanager
def _database(data_dir: Path | None) -> Iterator[Database]:
    from service.audit import OPERATOR, Actor, acting
    from service.database import Database
    from service.settings import service_settings

    settings = service_settings(data_dir)
    if settings.database_url.startswith("sqlite") and not (settings.data_dir / "rootstock.db").exists():
        raise RootstockError(
            f"{settings.data_dir}: no service was started here; start `rootstock serve`, or name its --data-dir"
        )
    database = Database(settings.database_url)
    try:
        database.migrate()
        with acting(Actor(OPERATOR)):
            yield database
    finally:
        database.close()
