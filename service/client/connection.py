"""Which service the command line talks to, and with which key.

ROOTSTOCK_URL (default http://127.0.0.1:8080) and ROOTSTOCK_API_KEY; or `rootstock login`, which keeps one key for every
origin, readable by its owner only. A key is sent to the origin that it was kept for and to no other.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from platformdirs import user_config_path

from pipelines.errors import ConfigError

if TYPE_CHECKING:
    from openai import OpenAI

DEFAULT_URL = "http://127.0.0.1:8080"


def connect() -> OpenAI:
    """OpenAI's client for this service. Raises ConfigError for a key or an address that is missing."""
    from openai import OpenAI

    origin = origin_of(os.environ.get("ROOTSTOCK_URL", DEFAULT_URL))
    key = os.environ.get("ROOTSTOCK_API_KEY") or kept_keys().get(origin)
    if not key:
        raise ConfigError(
            f"no key for {origin}: set ROOTSTOCK_API_KEY, or keep one with `rootstock login`; `rootstock keys create` "
            "makes one on the server's machine"
        )
    return OpenAI(base_url=f"{origin}/v1", api_key=key, max_retries=3)


def origin_of(url: str) -> str:
    """Scheme, host and port. Raises ConfigError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") not in ("", "v1"):
        raise ConfigError(f"ROOTSTOCK_URL: expected such as {DEFAULT_URL}, found {url!r}")
    return f"{parts.scheme}://{parts.netloc}"


def keep_key(key: str) -> Path:
    """Keep a key for the origin that ROOTSTOCK_URL names. Returns the file."""
    path = _keys_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = kept_keys() | {origin_of(os.environ.get("ROOTSTOCK_URL", DEFAULT_URL)): key}
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(keys, file, indent=2)
    temporary.replace(path)
    return path


def kept_keys() -> dict[str, str]:
    """Origin -> key."""
    try:
        found = json.loads(_keys_file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{_keys_file()}: cannot be read: {error}; `rootstock login` writes it anew") from None
    return found if isinstance(found, dict) else {}


def _keys_file() -> Path:
    return user_config_path("rootstock") / "keys.json"
