"""Pages without a worker: what they say, of whom, and that hostile words stay words."""

from __future__ import annotations

from typing import Any

import pytest

from service.database import Scope
from service.pages.render import POLICY
from service.tables import Job, JobEvent
from tests.service.pages.conftest import HOSTILE, Browser, with_model

CSV = b"text,label\n" + b"".join(b"some words %d,%s\n" % (n, b"ab"[n % 2 : n % 2 + 1]) for n in range(40))


# ---- every page


@pytest.mark.parametrize(
    "path", ["/", "/live", "/login", "/new", "/models", "/try", "/batches", "/batches/new", "/review", "/compare"]
)
def test_every_page_allows_nothing_from_elsewhere(browser: Browser, path: str) -> None:
    found = browser.get(path)
    assert found.status_code == 200
    assert found.headers["content-security-policy"] == POLICY
    assert found.headers["cache-control"] == "no-store"
    assert "unsafe" not in POLICY
    for inline in ("style=", "onclick", "<style", "javascript:"):
        assert inline not in found.text
    assert found.text.count("<script") == found.text.count("<script src=")


def test_a_page_that_is_not_there_says_so(browser: Browser) -> None:
    for path in ("/jobs/nothing", "/models/nothing", "/new/nothing", "/jobs/nothing/report", "/files/file-none"):
        found = browser.get(path)
        assert found.status_code == 404
        assert "<h1>Not found</h1>" in found.text
    for path in ("/nothing", "/jobs/a/b/c"):
        found = browser.get(path, headers={"Accept": "text/html"})
        assert (found.status_code, "There is no such page" in found.text) == (404, True)
        assert browser.get(path).json()["error"]["message"]


def test_a_part_shows_its_error_in_its_place(browser: Browser) -> None:
    found = browser.http.post("/new", data={"token": browser.token()}, headers={"HX-Request": "true"})
    assert found.status_code == 400
    assert found.headers["hx-retarget"] == "#message"
    assert "choose one first" in found.text


def test_empty_pages_teach(browser: Browser) -> None:
    assert "Drop a file of labelled examples" in browser.read("/")
    assert "You have no models yet" in browser.read("/models")
    assert "There is no model to try yet" in browser.read("/try")
    assert "No file was labelled yet" in browser.read("/batches")
    assert "There is nothing to review yet" in browser.read("/review")
    assert "There is no model yet" in browser.read("/compare")


# ---- jobs


def test_home_shows_what_runs_and_what_ended(browser: Browser) -> None:
    running, done = browser.job("running"), browser.job("succeeded")
    browser.change(running, progress={"steps_completed": 25, "total_steps": 100}, started_at=1.0)
    home = browser.read("/")
    assert home.index(f"/jobs/{running}") < home.index('id="recent"') < home.index(f"/jobs/{done}")
    assert 'value="0.2500"' in home
    assert "25 of 100 steps" in home
    assert f"/jobs/{done}" not in browser.read("/live")


def test_what_a_form_shows_is_not_listed_at_home(browser: Browser) -> None:
    ids = [browser.job(status, kind) for status in ("running", "succeeded") for kind in ("columns", "estimate")]
    assert not any(id in browser.read("/") for id in ids)


def test_older_jobs_are_on_further_pages(browser: Browser) -> None:
    ids = [browser.job("succeeded") for _ in range(25)][::-1]
    assert ids[19] in browser.read("/")
    assert ids[20] not in browser.read("/")
    older = browser.read(f"/?after={ids[19]}")
    assert ids[20] in older
    assert ids[19] not in older.replace(f"after={ids[19]}", "")


@pytest.mark.parametrize(
    ("kind", "status", "moves"),
    [
        ("fine-tune", "running", ["cancel", "pause"]),
        ("fine-tune", "paused", ["cancel", "resume"]),
        ("fine-tune", "failed", ["retry"]),
        ("check", "running", ["cancel"]),
        ("table", "failed", []),
        ("fine-tune", "cancelled", []),
    ],
)
def test_a_job_offers_what_can_be_done_with_it(browser: Browser, kind: Any, status: str, moves: list[str]) -> None:
    found = browser.read(f"/jobs/{browser.job(status, kind)}")
    assert [move for move in ("cancel", "pause", "resume", "retry") if f"/{move}" in found] == moves


def test_a_job_can_be_cancelled(browser: Browser) -> None:
    job_id = browser.job("running")
    assert browser.post(f"/jobs/{job_id}/cancel").headers["location"] == f"/jobs/{job_id}"
    assert "Cancelled" in browser.read(f"/jobs/{job_id}")
    again = browser.post(f"/jobs/{job_id}/cancel")
    assert (again.status_code, "already ended" in again.text) == (400, True)
    assert browser.post(f"/jobs/{job_id}/pause").status_code == 400
    assert browser.post(f"/jobs/{job_id}/explode").status_code == 404


def test_curves_are_drawn_from_metrics(browser: Browser) -> None:
    job_id = browser.job("running", "fine-tune")
    with browser.service.database.writing() as session:
        scope = Scope(session, browser.tenant)
        for step in (10, 20, 30):
            data = {"step": step, "train_loss": 1 / step, "valid_loss": 2 / step, "valid_macro_f1": step / 100}
            scope.add(JobEvent(id=f"e{step}", job_id=job_id, level="info", type="metrics", message="m", data=data))
    found = browser.read(f"/jobs/{job_id}")
    assert found.count("<polyline") == 3
    assert "Macro-F1" in found


def test_hostile_words_stay_words(browser: Browser) -> None:
    job_id = browser.job("failed", "fine-tune", suffix=HOSTILE)
    error = {"code": "x", "message": HOSTILE, "param": None, "problems": [{"line": 3, "message": HOSTILE}]}
    browser.change(job_id, error=error, progress={"plan": {"sentence": HOSTILE}})
    model = with_model(browser, HOSTILE, (HOSTILE, "b"))
    for path in ("/", f"/jobs/{job_id}", "/models", f"/models/{model}", "/try", "/batches/new", "/new"):
        found = browser.read(path)
        assert "<script>alert" not in found
        assert "<img src=x" not in found
    assert "&lt;script&gt;alert(1)" in browser.read(f"/jobs/{job_id}")


# ---- new


def test_a_file_is_kept_and_checked_before_anything_is_spent(browser: Browser) -> None:
    found = browser.post("/new", files={"file": ("my examples.csv", CSV)})
    assert found.status_code == 303, found.text
    address = found.headers["location"]
    assert address.startswith("/new/check_")
    page = browser.read(address)
    assert "my examples.csv" in page
    assert "hx-get" in page
    assert 'value="auto" selected' in page


def test_what_the_file_holds_is_shown(browser: Browser) -> None:
    check = browser.post("/new", files={"file": ("a.csv", CSV)}).headers["location"].rsplit("/", 1)[1]
    plan = {
        "rows": 40, "labels": {HOSTILE: 30, "b": 10}, "mapping": {"text": "body", "label": "kind"},
        "guessed": ["text"], "sentence": "s", "examples": [{"text": HOSTILE, "label": "b"}],
    }  # fmt: skip
    browser.change(check, progress={"plan": plan})
    found = browser.read(f"/new/{check}/data")
    assert "<b>40</b> rows" in found
    assert found.count("<meter") == 2
    assert "guessed" in found
    assert "<script>alert" not in found


def test_a_file_that_cannot_be_read_asks_for_its_columns(browser: Browser) -> None:
    check = browser.post("/new", files={"file": ("a.csv", CSV)}).headers["location"].rsplit("/", 1)[1]
    browser.change(check, status="failed", error={"code": "x", "message": "no column 'text'", "param": None})
    assert "<details open>" in browser.read(f"/new/{check}")
    again = browser.post(f"/new/{check}/columns", {"text": "body", "label": "kind"}).headers["location"]
    with browser.service.database.reading() as session:
        job = Scope(session, browser.tenant).get(Job, again.rsplit("/", 1)[1])
    assert job is not None
    assert {key: job.request["data"][key] for key in ("text", "label")} == {"text": "body", "label": "kind"}


def test_the_columns_of_a_file_that_cannot_be_read_are_offered(browser: Browser) -> None:
    check = browser.post("/new", files={"file": ("a.csv", CSV)}).headers["location"].rsplit("/", 1)[1]
    error = {"code": "x", "message": "no column 'text'", "param": None}
    browser.change(check, status="failed", error=error, progress={"plan": {"columns": ["body", HOSTILE]}})
    found = browser.read(f"/new/{check}")
    assert found.count('<option value="body">body</option>') == 4
    assert "<script>alert" not in found


def test_more_frozen_layers_than_there_are_are_refused(browser: Browser) -> None:
    check = browser.post("/new", files={"file": ("a.csv", CSV)}).headers["location"].rsplit("/", 1)[1]
    base = next(iter(browser.service.settings.base_models))
    found = browser.post(f"/new/{check}/train", {"model": base, "depth": "9"})
    assert (found.status_code, "expected at most 6, the hidden layers of" in found.text) == (400, True)
    assert "the lower 5</option>" in browser.read(f"/new/{check}")
    assert "the lower 6</option>" not in browser.read(f"/new/{check}")


def test_training_submits_what_an_api_call_would(browser: Browser) -> None:
    check = browser.post("/new", files={"file": ("a.csv", CSV)}).headers["location"].rsplit("/", 1)[1]
    base = next(iter(browser.service.settings.base_models))
    form = {"model": base, "name": "brand", "depth": "3", "train": "lora", "epochs": "2"}
    found = browser.post(f"/new/{check}/train", form)
    assert found.status_code == 303, found.text
    with browser.service.database.reading() as session:
        job = Scope(session, browser.tenant).get(Job, found.headers["location"].rsplit("/", 1)[1])
    assert job is not None
    assert job.kind == "fine-tune"
    assert job.request["suffix"] == "brand"
    config = job.request["config"]
    assert (config["backbone"], config["adapter"]) == ({"freeze": 3}, {"type": "lora"})
    assert config["training"]["epochs"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": "many"}, "expected a whole number"),
        ({"name": "a b"}, "suffix"),
        ({"model": "nothing"}, "does not exist"),
    ],
)
def test_settings_that_cannot_be_are_told(browser: Browser, change: dict[str, str], message: str) -> None:
    check = browser.post("/new", files={"file": ("a.csv", CSV)}).headers["location"].rsplit("/", 1)[1]
    base = next(iter(browser.service.settings.base_models))
    found = browser.post(f"/new/{check}/train", {"model": base} | change)
    assert found.status_code == 400
    assert message in found.text


def test_an_estimate_of_new_settings_gives_the_earlier_one_up(browser: Browser) -> None:
    check = browser.post("/new", files={"file": ("a.csv", CSV)}).headers["location"].rsplit("/", 1)[1]
    form = {"model": next(iter(browser.service.settings.base_models)), "depth": "auto"}
    part = {"HX-Request": "true"}
    first = browser.post(f"/new/{check}/estimate", form, headers=part)
    assert first.status_code == 200, first.text
    id = first.text.partition('name="estimate" value="')[2].partition('"')[0]
    browser.post(f"/new/{check}/estimate", form | {"estimate": id}, headers=part)
    with browser.service.database.reading() as session:
        job = Scope(session, browser.tenant).get(Job, id)
    assert job is not None
    assert job.status == "cancelled"


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/try/why", {"model": "m" * 300, "text": "a"}),
        ("/compare", {"model": "m" * 300}),
    ],
)
def test_fields_that_no_call_takes_are_told(browser: Browser, path: str, form: dict[str, str]) -> None:
    files = {"file": ("a.csv", CSV)} if path == "/compare" else None
    found = browser.post(path, form, files=files)
    assert found.status_code == 400
    assert "at most 255 characters" in found.text


def test_the_model_to_start_from_stays_in_the_address(browser: Browser) -> None:
    found = browser.post("/new", {"start": "ft:a/b:c&d=\n"}, files={"file": ("a.csv", CSV)})
    assert found.headers["location"].endswith("?start=ft%3Aa%2Fb%3Ac%26d%3D")


# ---- models


def test_a_champion_is_made_and_rolled_back(browser: Browser) -> None:
    first, second = with_model(browser), with_model(browser)
    for job_id in (first, second, first):
        assert browser.post(f"/models/{job_id}/aliases").headers["location"] == f"/models/{job_id}"
        assert "@champion" in browser.read(f"/models/{job_id}").partition("</h1>")[0]
    assert "@champion" not in browser.read(f"/models/{second}").partition("</h1>")[0]
    held = browser.post(f"/models/{first}/delete")
    assert (held.status_code, "alias" in held.text) == (400, True)
    assert browser.post(f"/models/{second}/delete").headers["location"] == "/models"
    assert second not in browser.read("/models")


def test_two_models_are_set_side_by_side(browser: Browser) -> None:
    one, two = (browser.model_of(with_model(browser, name)) for name in ("one", "two"))
    assert f'<option value="{two}" selected>' in browser.read(f"/compare?model={two}")
    form = {"model": [one, two], "text": "body", "label": "kind"}
    found = browser.post("/compare", form, files={"file": ("a.csv", CSV)})
    assert found.status_code == 303, found.text
    with browser.service.database.reading() as session:
        job = Scope(session, browser.tenant).get(Job, found.headers["location"].rsplit("/", 1)[1])
    assert job is not None
    assert (job.kind, job.request["models"]) == ("compare", [one, two])
    assert job.request["data"] == {"text": "body", "label": "kind", "slices": []}
    twice = browser.post("/compare", {"model": [one, one]}, files={"file": ("a.csv", CSV)})
    assert (twice.status_code, "different models" in twice.text) == (400, True)


def test_a_model_shows_its_figures_with_intervals_and_its_report(browser: Browser) -> None:
    job_id = with_model(browser)
    found = browser.read(f"/models/{job_id}")
    assert "<b>0.812</b>" in found
    assert "(0.750–0.870)" in found
    assert "the report" in browser.get(f"/jobs/{job_id}/report", headers={"Accept": "text/html"}).text
    assert browser.get(f"/models/{job_id}/files/report.json").headers["content-disposition"].startswith("attachment")
    assert browser.get(f"/models/{job_id}/files/model.safetensors").status_code == 404
    for text in (found, browser.read(f"/models/{job_id}/files/config.yaml")):
        assert "jobs/x/plan/train.jsonl" in text
        assert str(browser.service.settings.data_dir) not in text


# ---- two tenants


def test_nothing_of_another_tenant_is_ever_seen(browser: Browser, service: Any) -> None:
    model = with_model(browser, "secret-name")
    job_id = browser.job("running", "fine-tune", suffix="secret-name")
    check = browser.post("/new", files={"file": ("secret-name.csv", CSV)}).headers["location"].rsplit("/", 1)[1]
    key = service.caller("two")["Authorization"].removeprefix("Bearer ")
    browser.http.cookies.clear()
    assert browser.http.post("/login", data={"key": key}).status_code == 303
    for path in ("/", "/live", "/models", "/try", "/batches", "/batches/new"):
        assert "secret-name" not in browser.read(path)
    for path in (
        f"/jobs/{job_id}",
        f"/jobs/{job_id}/live",
        f"/models/{model}",
        f"/new/{check}",
        f"/jobs/{model}/report",
    ):
        assert browser.get(path).status_code == 404
    assert browser.post(f"/jobs/{job_id}/cancel").status_code == 404
    assert browser.post(f"/models/{model}/aliases").status_code == 404
    assert browser.post(f"/new/{check}/train", {"model": "x"}).status_code == 404


def test_a_key_without_the_right_is_refused(browser: Browser, service: Any) -> None:
    job_id = browser.job("running", "fine-tune")
    key = service.caller("one", scopes=["models:read"])["Authorization"].removeprefix("Bearer ")
    browser.http.cookies.clear()
    browser.http.post("/login", data={"key": key})
    assert browser.get("/new").status_code == 403
    assert browser.post(f"/jobs/{job_id}/cancel").status_code == 403
