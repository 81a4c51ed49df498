"""The review queue: one item at a time, labels of people, training data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service import reviews
from service.database import Scope
from service.files import get_file, path_of
from service.leftovers import Leftovers
from service.tables import Job, ReviewLabel
from tests.service.pages.conftest import Browser, with_model
from tests.service.pages.labelled import ITEMS, labelled


@pytest.fixture
def batch(browser: Browser) -> str:
    return labelled(browser, with_model(browser))


def say(browser: Browser, batch: str, row: int, label: str = "", **more: Any) -> Any:
    """`label` is a class; a form sends its number."""
    own = {"label": str("ab".index(label))} if label else {}
    return browser.post(f"/review/{batch}", {"by": "0", "row": str(row)} | own | more)


def said(browser: Browser) -> dict[int, str | None]:
    with browser.service.database.reading() as session:
        found = session.scalars(Scope(session, browser.tenant).select(ReviewLabel))
        return {each.row: each.label for each in found}


def test_items_come_one_after_the_other_the_nearest_first(browser: Browser, batch: str) -> None:
    first = browser.read(f"/review/{batch}")
    assert "the nearest &lt;script&gt;" in first
    assert 'value="1" data-key="c"' in first
    assert 'value="0" data-key="w"' in first
    assert say(browser, batch, 3, label="a").headers["location"] == f"/review/{batch}?by=0"
    assert "the second" in browser.read(f"/review/{batch}")
    say(browser, batch, 1, skip="1")
    assert "the third" in browser.read(f"/review/{batch}")
    say(browser, batch, 9, label="a")
    assert "You have seen every item" in browser.read(f"/review/{batch}")
    assert said(browser) == {3: "a", 1: None, 9: "a"}
    assert "<b>2</b> <bdi>a</bdi>" in browser.read(f"/review/{batch}")
    assert browser.read("/review").count("<td>2</td>") == 1


def test_an_item_can_be_looked_at_again_and_said_otherwise(browser: Browser, batch: str) -> None:
    say(browser, batch, 3, label="a")
    next_one = browser.read(f"/review/{batch}")
    assert f"/review/{batch}?by=0&amp;row=3" in next_one
    again = browser.read(f"/review/{batch}?by=0&row=3")
    assert "the nearest" in again
    assert "You said <b><bdi>a</bdi></b>" in again
    say(browser, batch, 3, label="b")
    assert said(browser) == {3: "b"}
    assert browser.get(f"/review/{batch}?by=0&row=4").status_code == 404


def test_one_can_go_back_through_all_that_was_said(browser: Browser, batch: str) -> None:
    for row in (3, 1, 9):
        say(browser, batch, row, label="a")
    for shown, before in (("", 9), ("&row=9", 1), ("&row=1", 3)):
        assert f'by=0&amp;row={before}"' in browser.read(f"/review/{batch}?by=0{shown}")
    assert "&amp;row=" not in browser.read(f"/review/{batch}?by=0&row=3")


def test_the_queue_of_an_operating_point_shows_its_threshold(browser: Browser, batch: str) -> None:
    found = browser.read(f"/review/{batch}?by=1")
    assert "the threshold 0.390" in found
    assert "the second" in found
    assert browser.get(f"/review/{batch}?by=2").status_code == 404
    assert browser.get(f"/review/{batch}?by=-1").status_code == 400
    assert browser.get(f"/review/{batch}?by={'9' * 300}").status_code == 400


def test_htmx_gets_the_next_item_alone(browser: Browser, batch: str) -> None:
    form = {"by": "0", "row": "3", "label": "1"}
    found = browser.post(f"/review/{batch}", form, headers={"HX-Request": "true"})
    assert found.text.lstrip().startswith('<div id="item">')
    assert "the second" in found.text


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"label": "2"}, 400),
        ({"label": "a"}, 400),
        ({"label": ""}, 400),
        ({"row": "4", "label": "0"}, 404),
        ({"row": "x", "label": "0"}, 400),
        ({"by": "7", "label": "0"}, 404),
    ],
)
def test_what_cannot_be_said_is_refused(browser: Browser, batch: str, form: dict[str, str], status: int) -> None:
    assert browser.post(f"/review/{batch}", {"by": "0", "row": "3"} | form).status_code == status
    assert said(browser) == {}


def test_many_classes_are_chosen_from_a_list(browser: Browser) -> None:
    labels = tuple(f"class {n}" for n in range(14))
    item = {"row": 1, "text": "t", "label": "class 0", "scores": dict.fromkeys(labels, 1 / 14)}
    found = browser.read(f"/review/{labelled(browser, with_model(browser, labels=labels), [item, item])}")
    assert found.count("Wrong: it is <bdi>") == 9
    assert found.count('">class ') == 4


def test_reviewed_items_are_training_data(browser: Browser, batch: str) -> None:
    other = labelled(browser, with_model(browser, "else"))
    say(browser, other, 1, label="b")
    say(browser, batch, 3, label="a")
    say(browser, batch, 1, skip="1")
    found = browser.get(f"/review/{batch}/examples")
    assert found.headers["content-disposition"] == f'attachment; filename="reviewed-{batch}.jsonl"'
    assert [json.loads(line) for line in found.text.splitlines()] == [{"text": ITEMS[0]["text"], "label": "a"}]


def test_of_one_text_in_two_batches_the_latest_word_counts(browser: Browser) -> None:
    model = with_model(browser)
    first, second = labelled(browser, model), labelled(browser, model)
    say(browser, second, 1, label="b")
    say(browser, first, 1, label="a")
    found = browser.get(f"/review/{second}/examples").text
    assert json.loads(found) == {"text": ITEMS[1]["text"], "label": "a"}


def test_what_was_said_outlives_the_output(browser: Browser) -> None:
    model = with_model(browser)
    gone, kept = labelled(browser, model), labelled(browser, model)
    say(browser, gone, 3, label="a")
    browser.delete_output(gone)
    assert json.loads(browser.get(f"/review/{kept}/examples").text)["label"] == "a"
    page = browser.read("/review")
    assert f'href="/review/{kept}"' in page
    assert f'href="/review/{gone}"' not in page


def test_classes_may_have_spaces_around_them(browser: Browser) -> None:
    labels = ("spam ", " ham")
    item = {"row": 1, "text": "t", "label": "spam ", "scores": {"spam ": 0.6, " ham": 0.4}}
    batch = labelled(browser, with_model(browser, labels=labels), [item, item])
    browser.post(f"/review/{batch}", {"by": "0", "row": "1", "label": "0"})
    assert said(browser) == {1: "spam "}


def test_a_follow_up_job_starts_from_the_model(browser: Browser, batch: str) -> None:
    empty = browser.post(f"/review/{batch}/train")
    assert (empty.status_code, "label some first" in empty.text) == (400, True)
    say(browser, batch, 3, label="a")
    address = browser.post(f"/review/{batch}/train").headers["location"]
    with browser.service.database.reading() as session:
        scope = Scope(session, browser.tenant)
        check = scope.get(Job, address.partition("?")[0].rsplit("/", 1)[1])
        assert check is not None
        file = get_file(scope, check.request["training_file"])
        batch_job = scope.get(Job, batch)
    assert file is not None
    assert batch_job is not None
    assert json.loads(path_of(browser.service.settings, file).read_text())["label"] == "a"
    model = batch_job.request["model"]
    assert f'<option value="{model}" selected>' in browser.read(address)


def test_results_are_swept_when_their_output_is_deleted(browser: Browser, batch: str) -> None:
    folder = browser.service.settings.tenant_dir(browser.tenant) / "batches" / batch
    Leftovers(browser.service.settings, browser.service.database).remove()
    assert folder.is_dir()
    trash = folder.with_name(".trash-other-1")
    trash.mkdir()
    left = labelled(browser, with_model(browser, "else"))
    browser.change(left, status="cancelled", result=None)
    browser.delete_output(batch)
    Leftovers(browser.service.settings, browser.service.database).remove()
    assert list(folder.parent.iterdir()) == []
    with browser.service.database.reading() as session:
        scope = Scope(session, browser.tenant)
        job = scope.get(Job, batch)
        assert job is not None
        assert reviews.preview_of(browser.service.settings, scope, job) is None


def test_another_tenant_and_a_key_without_the_right_see_and_say_nothing(
    browser: Browser, service: Any, batch: str
) -> None:
    say(browser, batch, 3, label="a")
    for name, scopes, status in (("one", ["models:read"], 403), ("two", None, 404)):
        key = service.caller(name, **({"scopes": scopes} if scopes else {}))["Authorization"].removeprefix("Bearer ")
        browser.http.cookies.clear()
        assert browser.http.post("/login", data={"key": key}).status_code == 303
        assert say(browser, batch, 1, label="a").status_code == status
        assert browser.post(f"/review/{batch}/train").status_code == status
    assert browser.get(f"/review/{batch}").status_code == 404
    assert browser.get(f"/review/{batch}/examples").status_code == 404
    assert batch not in browser.read("/review")
