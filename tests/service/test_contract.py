"""The API against its own OpenAPI document: what schemathesis makes up, right and wrong, in all its phases.

`ROOTSTOCK_CONTRACT_EXAMPLES` is how many examples each operation gets in the phases that make some up: 80 make more
than 5,000 cases, 1,200 more than 50,000. `ROOTSTOCK_CONTRACT_SEED` asks other questions.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from limits import RateLimitItemPerMinute
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, from_schema
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished

from service.api import create_app
from service.database import Database
from service.engine import JobEngine
from service.inference.client import Inference
from service.keys import SCOPES, create_key
from service.settings import service_settings

EXAMPLES = int(os.environ.get("ROOTSTOCK_CONTRACT_EXAMPLES", "80"))
SEED = int(os.environ.get("ROOTSTOCK_CONTRACT_SEED", "1"))
CONFIG: dict[str, Any] = {
    "seed": SEED,
    "generation": {
        "max-examples": EXAMPLES,
        "no-shrink": True,
        "database": "none",
        "allow-extra-parameters": False,  # an unknown one in an address is ignored
    },
    "checks": {
        "positive_data_acceptance": {"enabled": False},  # a fitting body may name a file that is not there
    },
    "continue-on-failure": True,
}


@pytest.mark.slow
def test_every_answer_is_as_the_document_says(tmp_path: Path, empty: Path) -> None:
    own = dataclasses.replace(service_settings(tmp_path), database_url=f"sqlite:///{tmp_path / 'rootstock.db'}")
    own = dataclasses.replace(own, hosts=(*own.hosts, "testserver"))
    shutil.copyfile(empty, tmp_path / "rootstock.db")
    database = Database(own.database_url)
    engine = JobEngine(database)
    app = create_app(own, database, engine, Inference(tmp_path / "run"))
    limits = app.state.context.limits
    limits.calls = limits.failures = RateLimitItemPerMinute(100_000_000)
    with database.writing() as session:
        headers = {"Authorization": f"Bearer {create_key(session, 'one', 'test', SCOPES)[1]}"}
    config = SchemathesisConfig.from_dict(CONFIG | {"headers": headers})
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=config, headers=headers)
    schema = schema.exclude(path_regex="/stream$")  # that of a job on which nobody works never ends

    cases: Counter[str] = Counter()
    failures: dict[tuple[str, str], str] = {}
    for event in from_schema(schema).execute():
        assert not isinstance(event, FatalError | NonFatalError), event
        if isinstance(event, ScenarioFinished):
            cases[event.phase.value] += len(event.recorder.cases)
            for checks in event.recorder.checks.values():
                for check in checks:
                    if check.status == Status.FAILURE:
                        what = str(check.failure_info and check.failure_info.failure)
                        failures.setdefault((event.recorder.label, check.name), what)
    engine.close()
    database.close()
    print(f"{sum(cases.values()):,} cases: {dict(cases)}")
    assert not failures, "\n\n".join(f"{operation}, {check}: {what}" for (operation, check), what in failures.items())
    assert all(cases[phase] for phase in ("coverage", "fuzzing", "stateful")), cases
    assert sum(cases.values()) >= 5_000 or EXAMPLES < 80, cases
