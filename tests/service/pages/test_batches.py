"""From a file to a batch, and what is shown of its results."""

from __future__ import annotations

from service.database import Scope
from service.tables import Job
from tests.service.pages.conftest import HOSTILE, Browser, with_model
from tests.service.pages.labelled import labelled

CSV = b"id,body\n1,one\n2,two\n"


def look_at(browser: Browser, model: str) -> str:
    with_model(browser)
    found = browser.post("/batches/new", {"model": model}, files={"file": ("my rows.csv", CSV)})
    assert found.status_code == 303, found.text
    return found.headers["location"]


def test_columns_are_shown_before_anything_is_labelled(browser: Browser) -> None:
    address = look_at(browser, "ft:a:b")
    assert address.endswith("?model=ft%3Aa%3Ab")
    look = address.partition("?")[0].rsplit("/", 1)[1]
    waiting = browser.read(address)
    assert "my rows.csv" in waiting
    assert f"/batches/new/{look}/columns" in waiting
    plan = {"columns": ["id", "body"], "text": "body", "shown": ["body", "id"], "rows": [[HOSTILE, "1"]]}
    browser.change(look, progress={"plan": plan})
    found = browser.read(f"/batches/new/{look}/columns")
    assert '<option value="body" selected>body</option>' in found
    assert "<script>alert" not in found
    assert "hx-get" not in found


def test_a_file_whose_text_column_is_not_clear_asks_for_it(browser: Browser) -> None:
    look = look_at(browser, "").rsplit("/", 1)[1]
    browser.change(look, progress={"plan": {"columns": ["a", " b "], "text": None, "shown": ["a", " b "], "rows": []}})
    found = browser.read(f"/batches/new/{look}")
    assert "choose it" in found
    assert "None of its rows can be read" in found
    assert '<option value=" b ">' in found
    nothing = browser.post(f"/batches/new/{look}", {"model": "m"})
    assert (nothing.status_code, "choose one" in nothing.text) == (400, True)


def test_a_file_that_cannot_be_read_says_why(browser: Browser) -> None:
    look = look_at(browser, "").rsplit("/", 1)[1]
    browser.change(look, status="failed", error={"code": "x", "message": "the file is empty", "param": None})
    assert "the file is empty" in browser.read(f"/batches/new/{look}")
    browser.change(look, status="succeeded", error=None)
    assert "could not be read" in browser.read(f"/batches/new/{look}")


def test_a_batch_is_what_an_api_call_would_make(browser: Browser) -> None:
    address = look_at(browser, "").partition("?")[0]
    model = browser.model_of(with_model(browser))
    found = browser.post(address, {"model": model, "text": "body"})
    assert found.status_code == 303, found.text
    with browser.service.database.reading() as session:
        job = Scope(session, browser.tenant).get(Job, found.headers["location"].rsplit("/", 1)[1])
    assert job is not None
    assert (job.kind, job.request["model"], job.request["text"]) == ("table", model, "body")
    assert browser.post(address, {"text": "body"}).status_code == 400
    long = browser.post(address, {"model": "m" * 300, "text": "body"})
    assert (long.status_code, "at most 255 characters" in long.text) == (400, True)


def test_results_are_shown_in_place(browser: Browser) -> None:
    job_id = labelled(browser, with_model(browser))
    found = browser.read(f"/jobs/{job_id}")
    assert "75.0%" in found
    assert "25.0%" in found
    assert "Drift: label shares differ" in found
    assert "no text here" in found
    assert f'href="/review/{job_id}"' in found
    assert "<script>alert" not in found


def test_results_go_with_the_output(browser: Browser) -> None:
    job_id = labelled(browser, with_model(browser))
    browser.delete_output(job_id)
    assert "75.0%" not in browser.read(f"/jobs/{job_id}")
    assert browser.get(f"/review/{job_id}").status_code == 404
