"""What people say of items: two at once take turns, on either database."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from service import jobs, reviews
from service.database import Database, Scope
from service.keys import create_key
from service.models import add_model
from service.tables import Job, ReviewLabel
from tests.service.postgres import database_url

ITEM = {"row": 1, "text": "a text", "label": "a", "scores": {"a": 0.6, "b": 0.4}}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_two_people_who_label_one_item_take_turns(kind: str, tmp_path: Path) -> None:
    with database_url(kind) as url:
        database = Database(url or f"sqlite:///{tmp_path / 'rootstock.db'}")
        database.migrate()
        with database.writing() as session:
            tenant = create_key(session, "agency", "a")[0].tenant_id
            scope = Scope(session, tenant)
            job = jobs.create(scope, "table", {}, {})
            model = add_model(scope, job, "ft:base:agency::x", "base", None, ["a", "b"])
        faults: list[BaseException] = []

        def say(label: str) -> None:
            try:
                for moment in range(20):
                    with database.writing() as session:
                        scope = Scope(session, tenant)
                        locked = scope.get(Job, job.id, lock=True)
                        assert locked is not None
                        reviews.give(scope, locked, model, ITEM, label, float(moment))
            except BaseException as fault:
                faults.append(fault)

        threads = [threading.Thread(target=say, args=(label,)) for label in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert faults == []
        with database.reading() as session:
            (said,) = session.scalars(Scope(session, tenant).select(ReviewLabel)).all()
            assert said.label in ("a", "b")
            assert reviews.examples(Scope(session, tenant), model) == [{"text": "a text", "label": said.label}]
        database.close()
