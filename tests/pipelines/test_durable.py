"""Published directories are complete or absent."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from pipelines import durable
from pipelines.errors import RunDirectoryError


@pytest.fixture
def published(tmp_path: Path) -> Path:
    staging = tmp_path / ".staging"
    (staging / "deep" / "er").mkdir(parents=True)
    (staging / "a.txt").write_bytes(b"alpha")
    (staging / "deep" / "er" / "b.bin").write_bytes(bytes(range(256)))
    durable.publish(staging, tmp_path / "done", {"kind": "toy", "labels": ["ä", "😀"]})
    return tmp_path / "done"


def test_publish_writes_digests_and_details_and_renames(published: Path) -> None:
    assert not published.with_name(".staging").exists()
    manifest = json.loads((published / "manifest.json").read_text(encoding="utf-8"))
    assert manifest == {
        "kind": "toy",
        "labels": ["ä", "😀"],
        "sha256": {
            "a.txt": hashlib.sha256(b"alpha").hexdigest(),
            "deep/er/b.bin": hashlib.sha256(bytes(range(256))).hexdigest(),
        },
    }
    assert durable.verify(published) == manifest


def test_publish_never_replaces_a_directory(published: Path, tmp_path: Path) -> None:
    staging = tmp_path / ".other"
    staging.mkdir()
    with pytest.raises(OSError, match="not empty"):
        durable.publish(staging, published, {})
    assert durable.verify(published)["kind"] == "toy"


def test_all_is_synced_before_the_rename_makes_it_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut a visible directory is whole: every file, then every folder, then the rename."""
    staging, target = tmp_path / ".staging", tmp_path / "done"
    (staging / "deep").mkdir(parents=True)
    (staging / "deep" / "a").write_text("a")
    names: list[str] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        names.append(f"{Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}{' visible' * target.exists()}")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    durable.publish(staging, target, {})
    assert names == ["a", "manifest.json", "deep", ".staging", f"{tmp_path.name} visible"]


def test_a_changed_file_is_named(published: Path) -> None:
    (published / "deep" / "er" / "b.bin").write_bytes(bytes(range(255)) + b"\x00")  # the same size
    with pytest.raises(RunDirectoryError, match=r"done: the file deep/er/b\.bin was changed after it was written"):
        durable.verify(published)


def test_a_missing_file_is_named(published: Path) -> None:
    (published / "a.txt").unlink()
    with pytest.raises(RunDirectoryError, match=r"done: the file a\.txt is missing"):
        durable.verify(published)


def test_without_a_manifest_a_directory_is_not_complete(published: Path) -> None:
    (published / "manifest.json").unlink()
    with pytest.raises(RunDirectoryError, match=r"not a complete run directory \(manifest\.json is missing\)"):
        durable.verify(published)
    with pytest.raises(RunDirectoryError, match="nowhere: no such directory"):
        durable.verify(published / "nowhere")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"sha256": {', "cannot be read"),
        ("\ufeff{}", "cannot be read"),
        ("[]", "lacks the sha256 of the files"),
        ('{"name": "an extension"}', "lacks the sha256 of the files"),
        ('{"sha256": "abc"}', "lacks the sha256 of the files"),
    ],
)
def test_a_torn_or_foreign_manifest_is_refused(published: Path, text: str, message: str) -> None:
    (published / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(RunDirectoryError, match=rf"manifest\.json: .*{message}"):
        durable.verify(published)


def test_discard_removes_all_and_leaves_no_trash(published: Path) -> None:
    durable.discard(published)
    assert list(published.parent.iterdir()) == []
    durable.discard(published)  # what is absent already may be discarded again


def test_json_is_readable_and_without_nan(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    durable.write_json(file, {"label": "ä😀", "n": [1]})
    assert file.read_text(encoding="utf-8") == '{\n  "label": "ä😀",\n  "n": [\n    1\n  ]\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        durable.write_json(file, {"loss": float("nan")})
    assert "ä😀" in file.read_text(encoding="utf-8")  # the old content is still there
