from __future__ import annotations

import time

import pytest

from pipelines.errors import ConfigError
from service.database import Database
from service.keys import create_key, find_caller, revoke, rotate, well_formed


def test_a_key_finds_its_tenant(database: Database) -> None:
    with database.writing() as session:
        _, text = create_key(session, "agency", "laptop", ["models:read"])
    with database.reading() as session:
        caller = find_caller(session, text)
    assert caller is not None
    assert caller.tenant_name == "agency"
    assert caller.may("models:read")
    assert not caller.may("jobs:write")


def test_two_keys_of_one_name_share_the_tenant(database: Database) -> None:
    with database.writing() as session:
        one, _ = create_key(session, "agency", "a")
        two, _ = create_key(session, "agency", "b")
        other, _ = create_key(session, "other", "c")
    assert one.tenant_id == two.tenant_id != other.tenant_id


def test_only_the_digest_is_kept(database: Database) -> None:
    with database.writing() as session:
        key, text = create_key(session, "agency", "laptop")
    assert text not in str(vars(key))
    assert key.hint == text[-4:]


@pytest.mark.parametrize(
    "change", [lambda t: t[:-1], lambda t: t + "x", lambda t: t.replace("rsk_", "rsx_"), str.upper]
)
def test_mistyped_keys_are_not_looked_up(database: Database, change: object) -> None:
    with database.writing() as session:
        _, text = create_key(session, "agency", "laptop")
    assert well_formed(text)
    assert not well_formed(change(text))  # type: ignore[operator]


def test_one_changed_character_breaks_the_checksum(database: Database) -> None:
    with database.writing() as session:
        _, text = create_key(session, "agency", "laptop")
    for place in range(4, len(text)):
        other = "a" if text[place] != "a" else "b"
        assert not well_formed(text[:place] + other + text[place + 1 :])


def test_expired_and_revoked_keys_find_nobody(database: Database) -> None:
    with database.writing() as session:
        _, expired = create_key(session, "agency", "a", expires_at=time.time() - 1)
        key, revoked = create_key(session, "agency", "b")
        assert revoke(session, key.id)
        assert not revoke(session, key.id)
    with database.reading() as session:
        assert find_caller(session, expired) is None
        assert find_caller(session, revoked) is None


def test_unknown_scopes_are_refused(database: Database) -> None:
    with database.writing() as session, pytest.raises(ConfigError, match="found everything"):
        create_key(session, "agency", "a", ["everything"])


def test_a_rotated_key_has_a_successor_and_ends_after_a_while(database: Database) -> None:
    with database.writing() as session:
        old, text = create_key(session, "agency", "laptop", ["models:read", "files:write"])
        successor = rotate(session, old.id, 3600)
        assert successor is not None
        assert old.expires_at == pytest.approx(time.time() + 3600, abs=60)
    with database.reading() as session:
        before, after = find_caller(session, text), find_caller(session, successor)
    assert before is not None
    assert after is not None
    assert (after.tenant_id, after.scopes, after.expires_at) == (before.tenant_id, before.scopes, None)
    with database.writing() as session:
        rotated = rotate(session, after.key_id, 0)
        assert rotated is not None
        assert find_caller(session, successor) is None
        assert rotate(session, after.key_id, 0) is None  # it has ended


def test_rotation_prolongs_nothing(database: Database) -> None:
    with database.writing() as session:
        end = time.time() + 100
        old, _ = create_key(session, "agency", "laptop", expires_at=end)
        text = rotate(session, old.id, 3600)
        assert text is not None
        found = find_caller(session, text)
    assert old.expires_at == end
    assert found is not None
    assert found.expires_at == end
