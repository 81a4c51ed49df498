"""The same create call again gives the same object: by Idempotency-Key, or where a client retries without one.

No client of OpenAI's sends the header; a retry differs only in `x-stainless-retry-count` (measured).
Both the note and the object are written in one transaction.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from fastapi import Request

from service.auth import caller_of
from service.database import Scope
from service.errors import ApiError, invalid
from service.tables import Answered

KEPT_S = 24 * 3600
RETRIED_S = 600.0  # a retry comes within this


@dataclass(frozen=True)
class Create:
    """One create call: which key, what it asks for, and what says that it may be a repetition."""

    key_id: str
    idempotency_key: str | None
    digest: str
    retry: bool

    def earlier(self, scope: Scope) -> str | None:
        """Id of the object that the same call made before. Raises ApiError 422 for the same key with another body."""
        self._take_turns(scope)
        mine = sa.select(Answered).where(Answered.key_id == self.key_id)
        if self.idempotency_key is not None:
            same = mine.where(
                Answered.idempotency_key == self.idempotency_key, Answered.created_at > time.time() - KEPT_S
            )
            found = scope.session.scalars(same).one_or_none()
            if found is not None and found.request_digest != self.digest:
                raise ApiError(
                    422,
                    "This Idempotency-Key came with another request before; use a new one",
                    "idempotency_key_reused",
                )
            return None if found is None else found.object_id
        if not self.retry:
            return None
        recent = mine.where(Answered.request_digest == self.digest, Answered.created_at > time.time() - RETRIED_S)
        found = scope.session.scalars(recent.order_by(Answered.created_at)).first()
        return None if found is None else found.object_id

    def _take_turns(self, scope: Scope) -> None:
        """The same call twice at the same time: on PostgreSQL the second waits for the first; SQLite has one writer."""
        if scope.session.get_bind().dialect.name == "postgresql":
            words = f"{self.key_id} {self.idempotency_key or self.digest}"
            scope.session.execute(
                sa.text("select pg_advisory_xact_lock(hashtextextended(:words, 0))"), {"words": words}
            )

    def answer(self, scope: Scope, object_id: str) -> None:
        """Note what was made."""
        key = self.idempotency_key or f"implicit:{object_id}"
        scope.session.execute(
            sa.delete(Answered).where(Answered.key_id == self.key_id, Answered.idempotency_key == key)
        )  # one that has expired
        row = Answered(
            key_id=self.key_id, idempotency_key=key, tenant_id=scope.tenant_id, request_digest=self.digest,
            object_id=object_id, created_at=time.time(),
        )  # fmt: skip
        scope.session.add(row)


def create_of(request: Request, body: Any) -> Create:
    """Args: body: what was asked for, as JSON values. Raises ApiError 400 for a key that is none."""
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= 200 and key.isprintable() and not key.startswith("implicit:")):
        raise invalid("Idempotency-Key: expected 1 to 200 printable characters, not beginning with implicit:")
    count = request.headers.get("x-stainless-retry-count", "0")
    text = json.dumps([request.url.path, body], sort_keys=True, ensure_ascii=False)
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return Create(caller_of(request).key_id, key, digest, count.isdecimal() and count.strip("0") != "")
