"""API keys: `rsk_` + 32 random characters + a checksum, so that a leaked one can be found in text without a database.

Only the SHA-256 is kept: a random key needs no slow hash. The form is GitHub's
(https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/).
"""

from __future__ import annotations

import hashlib
import math
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from pipelines.errors import ConfigError
from service.database import Scope
from service.ids import ALPHABET, new_id, random_word
from service.tables import Key, Tenant

PREFIX = "rsk_"
RANDOM, CHECK = 32, 6  # characters; about 190 bits
RESOURCES = ("files", "jobs", "batches", "models")
SCOPES = (*(f"{resource}:{what}" for resource in RESOURCES for what in ("read", "write")), "admin")
USED_EVERY_S = 60.0  # how exact `last_used_at` is
FIRST_TENANT = "default"


@dataclass(frozen=True)
class Caller:
    """Who calls: what the key says, without the key."""

    key_id: str
    tenant_id: str
    tenant_name: str
    scopes: frozenset[str]
    expires_at: float | None
    last_used_at: float | None

    def may(self, scope: str) -> bool:
        return scope in self.scopes or "admin" in self.scopes

    @property
    def use_is_old(self) -> bool:
        return self.last_used_at is None or self.last_used_at < time.time() - USED_EVERY_S


def create_key(
    session: Session, tenant: str, name: str, scopes: Iterable[str] = SCOPES[:-1], expires_at: float | None = None
) -> tuple[Key, str]:
    """A new key; the text of it exists only in the answer.

    Args:
        tenant: name of the account; made where it does not exist.
        expires_at: Unix seconds, or never.

    Raises:
        ConfigError: for a scope that does not exist.
    """
    wanted = sorted(set(scopes))
    unknown = [scope for scope in wanted if scope not in SCOPES]
    if unknown or not wanted:
        raise ConfigError(f"scopes: expected some of {', '.join(SCOPES)}; found {', '.join(unknown) or 'none'}")
    text = _text()
    owner = _tenant(session, tenant)
    key = Key(id=new_id("key_"), name=name, digest=digest(text), hint=text[-4:], scopes=wanted, expires_at=expires_at)
    Scope(session, owner.id).add(key)
    session.flush()
    return key, text


def find_caller(session: Session, text: str) -> Caller | None:
    """Who this key belongs to; None for one that is wrong, expired or revoked."""
    return _caller(session, Key.digest == digest(text)) if well_formed(text) else None


def find_caller_by_id(session: Session, key_id: str) -> Caller | None:
    """Who the key of a signed session belongs to; None for one that is expired or revoked."""
    return _caller(session, Key.id == key_id)


def _caller(session: Session, one: sa.ColumnElement[bool]) -> Caller | None:
    now = time.time()
    found = session.execute(sa.select(Key, Tenant).join(Tenant).where(one)).one_or_none()
    if found is None:
        return None
    key, tenant = found
    if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
        return None
    return Caller(key.id, tenant.id, tenant.name, frozenset(key.scopes), key.expires_at, key.last_used_at)


def note_use(session: Session, caller: Caller) -> None:
    """Remember that a key is in use."""
    session.execute(sa.update(Key).where(Key.id == caller.key_id).values(last_used_at=time.time()))


def revoke(session: Session, id: str) -> bool:
    """End a key; returns whether there was one to end. Servers notice within a second."""
    key = session.scalars(sa.select(Key).where(Key.id == id, Key.revoked_at.is_(None)).with_for_update()).one_or_none()
    if key is not None:
        key.revoked_at = time.time()
        session.flush()
    return key is not None


def rotate(session: Session, id: str, overlap_s: float) -> str | None:
    """A new key that may do what a live one may, which ends after a while; the new one's text, None without a live one.

    Args:
        overlap_s: seconds for which both are good; an earlier end of the old one stays.
    """
    now = time.time()
    old = session.scalars(sa.select(Key).where(Key.id == id).with_for_update()).one_or_none()
    if old is None or old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= now):
        return None
    tenant = session.scalars(sa.select(Tenant.name).where(Tenant.id == old.tenant_id)).one()
    _, text = create_key(session, tenant, old.name, old.scopes, old.expires_at)
    old.expires_at = min(now + overlap_s, old.expires_at or math.inf)
    return text


def any_key(session: Session) -> bool:
    return session.scalar(sa.select(sa.exists().select_from(Key))) or False


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def well_formed(text: str) -> bool:
    """Whether the checksum fits: mistyped keys never reach the database."""
    body = text.removeprefix(PREFIX)
    if len(text) != len(PREFIX) + RANDOM + CHECK or body == text or not set(body) <= set(ALPHABET):
        return False
    return body[RANDOM:] == _checksum(body[:RANDOM])


def _text() -> str:
    body = random_word(RANDOM)
    return PREFIX + body + _checksum(body)


def _checksum(body: str) -> str:
    """CRC32 in base62, CHECK characters."""
    number, characters = zlib.crc32(body.encode()), ""
    for _ in range(CHECK):
        number, rest = divmod(number, len(ALPHABET))
        characters = ALPHABET[rest] + characters
    return characters


def _tenant(session: Session, name: str) -> Tenant:
    found = session.scalars(sa.select(Tenant).where(Tenant.name == name)).one_or_none()
    if found is None:
        found = Tenant(id=new_id("tenant_"), name=name, created_at=time.time())
        session.add(found)
        session.flush()
    return found
