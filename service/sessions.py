"""Signed in: a cookie that names an API key, and a token in every form that only pages with that cookie know.

The cookie holds no secret of the key; a key that is revoked ends its sessions within a second, as it ends its calls.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from fastapi import Request
from itsdangerous import BadSignature, URLSafeSerializer, URLSafeTimedSerializer

COOKIE = "rootstock_session"
LASTS_S = 12 * 3600  # then the key is asked for again
SECRET = "session.key"
API = ("/v1/", "/hf/", "/metrics", "/openapi.json", "/healthz", "/readyz")  # everything else is a page


def is_page(path: str) -> bool:
    """Whether a path is for a browser: only there a cookie is read, so that no other site's form can call the API."""
    return not path.startswith(API)


def is_partial(request: Request) -> bool:
    """Whether htmx asks, for a part of a page."""
    return request.headers.get("hx-request") == "true"


class Sessions:
    """Makes and reads cookies and form tokens, signed with a secret of this service.

    Args:
        data_dir: where the secret lies; it is made at the first start.
    """

    def __init__(self, data_dir: Path) -> None:
        secret = _secret(data_dir / SECRET)
        self._cookies = URLSafeTimedSerializer(secret, salt="session")
        self._tokens = URLSafeSerializer(secret, salt="form")

    def cookie(self, key_id: str) -> str:
        """A new session of a key."""
        return str(self._cookies.dumps([key_id, secrets.token_urlsafe(12)]))

    def key_of(self, cookie: str) -> str | None:
        """Id of the key; None for a cookie that is forged or too old."""
        try:
            key_id, _ = self._cookies.loads(cookie, max_age=LASTS_S)
        except (BadSignature, ValueError, TypeError):
            return None
        return key_id if isinstance(key_id, str) else None

    def token(self, cookie: str) -> str:
        """What forms of this session carry."""
        return str(self._tokens.dumps(_digest(cookie)))

    def is_token(self, token: str, cookie: str) -> bool:
        try:
            found = self._tokens.loads(token)
        except BadSignature:
            return False
        return secrets.compare_digest(str(found), _digest(cookie))


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()[:32]


def _secret(path: Path) -> bytes:
    """The bytes of the file, which is written whole or not at all."""
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # of two processes that start at once, the first wins
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return path.read_bytes()
