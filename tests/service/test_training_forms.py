"""Columns and a mapping -> where text and label stand, and what a row says then."""

from __future__ import annotations

from typing import Any

import pytest

from service.refused import UploadRefused
from service.training_forms import choose_form, word

USER, ANSWER = {"role": "user", "content": "hello"}, {"role": "assistant", "content": " safe\n"}


def refusal(columns: list[str], mapping: dict[str, Any]) -> tuple[str, str | None, str]:
    """Message, param and code."""
    with pytest.raises(UploadRefused) as caught:
        choose_form(columns, mapping)
    return caught.value.message, caught.value.param, caught.value.code


def row_problem(columns: list[str], values: dict[str, Any], mapping: dict[str, Any] | None = None) -> str:
    with pytest.raises(UploadRefused) as caught:
        choose_form(columns, mapping or {}).read(values)
    return caught.value.message


@pytest.mark.parametrize(
    ("columns", "form"),
    [
        (["messages"], "chat"),
        (["messages", "text", "label"], "chat"),
        (["prompt", "completion"], "prompt_completion"),
        (["label", "text", "more"], "text_label"),
        (["inputs", "label"], "inputs_label"),
        (["tweet", "class"], "table"),
    ],
)
def test_the_form_follows_from_the_columns(columns: list[str], form: str) -> None:
    assert choose_form(columns, {}).name == form


def test_a_mapping_goes_before_the_form() -> None:
    form = choose_form(["messages", "text", "label", "kind"], {"label": "kind"})
    assert (form.name, form.mapping, form.guessed) == ("table", {"text": "text", "label": "kind"}, ("text",))
    assert choose_form(["messages", "id"], {"id": "id"}).mapping == {"id": "id"}


@pytest.mark.parametrize(
    ("columns", "text", "label"),
    [
        (["", "count", "class", "tweet"], "tweet", "class"),
        (["Text", "CATEGORY"], "Text", "CATEGORY"),
        (["tweet_text", "user_intent"], "tweet_text", "user_intent"),
        (["message", "tweet", "label"], "tweet", "label"),
        (["query text", "y"], "query text", "y"),
    ],
)
def test_usual_names_are_found(columns: list[str], text: str, label: str) -> None:
    found = choose_form(columns, {})
    assert (found.mapping, found.guessed) == ({"text": text, "label": label}, ("text", "label"))


def test_a_column_with_a_role_is_not_guessed_for_another() -> None:
    found = choose_form(["text_id", "tweet_text", "label"], {"id": "text_id"})
    assert found.mapping == {"text": "tweet_text", "label": "label", "id": "text_id"}


@pytest.mark.parametrize(
    ("columns", "mapping", "message", "param", "code"),
    [
        (
            ["text", "label_sexist", "label_vector"],
            {},
            "data.label: name the column that holds the label; 'label_sexist', 'label_vector' may each be meant",
            "data.label",
            "invalid_training_file",
        ),
        (
            ["query", "kind"],
            {"text": "query"},
            "data.label: name the column that holds the label; columns found: 'query', 'kind'",
            "data.label",
            "invalid_training_file",
        ),
        (
            ["tweet", "class"],
            {"text": "twet"},
            "data.text: no column 'twet'; columns found: 'tweet', 'class'. Did you mean 'tweet'?",
            "data.text",
            "invalid_training_file",
        ),
        (
            ["text", "label"],
            {"slices": ["kind"]},
            "data.slices: no column 'kind'; columns found: 'text', 'label'",
            "data.slices",
            "invalid_training_file",
        ),
        (
            ["text", "label"],
            {"text": "text", "label": "text"},
            "data.label: expected another column than that of the text, found 'text' for both",
            "data.label",
            "invalid_value",
        ),
        (
            ["a", "b"],
            {"txt": "a"},
            "data.txt: unknown key; expected one of text, label, id, group, slices",
            "data.txt",
            "",
        ),
        (["a", "b"], {"id": 3}, "data.id: expected the name of a column, found a number", "data.id", "invalid_value"),
        (["a", "b"], {"slices": "a"}, "data.slices: expected a list of columns, found a string", "data.slices", ""),
        (
            ["text", "label", "line"],
            {"slices": ["line"]},
            "data.slices: items have a column 'line' of their own; rename yours in the file",
            "data.slices",
            "invalid_value",
        ),
    ],
)
def test_columns_that_are_not_clear(
    columns: list[str], mapping: dict[str, Any], message: str, param: str, code: str
) -> None:
    assert refusal(columns, mapping) == (message, param, code or "invalid_value")


@pytest.mark.parametrize(
    ("columns", "values", "found"),
    [
        (["messages"], {"messages": [{"role": "system", "content": "s"}, USER, ANSWER]}, ("hello", "safe")),
        (["messages"], {"messages": [USER, ANSWER, USER | {"content": "last"}, ANSWER]}, ("last", "safe")),
        (
            ["messages"],
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "part"}]}, ANSWER]},
            ("part", "safe"),
        ),
        (["prompt", "completion"], {"prompt": "p ->", "completion": " yes\n"}, ("p ->", "yes")),
        (["text", "label"], {"text": " x ", "label": " ü "}, (" x ", " ü ")),
        (["inputs", "label"], {"inputs": "x", "label": 0}, ("x", "0")),
        (["text", "label"], {"text": "x", "label": False}, ("x", "false")),
        (["text", "label"], {"text": "x", "label": 0.5}, ("x", "0.5")),
    ],
)
def test_text_and_label_of_a_row(columns: list[str], values: dict[str, Any], found: tuple[str, str]) -> None:
    assert choose_form(columns, {}).read(values) == found


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ("x", "messages: expected a list of messages, found a string"),
        (
            [USER],
            "messages[0]: expected the assistant's answer last, which is the label, found the role 'user'",
        ),
        (
            [USER, ANSWER, USER],
            "messages[2]: expected the assistant's answer last, which is the label, found the role 'user'",
        ),
        ([ANSWER], "messages: expected a message with the role user, whose text is classified, found none"),
        ([USER | {"content": " "}, ANSWER], "messages[0].content: the text is empty; fill it or leave it out"),
        ([USER, ANSWER | {"content": "\n"}], "messages[1].content: the text is empty; fill it or leave it out"),
        (
            [USER, {"role": "assistant", "tool_calls": []}],
            "messages[1].content: expected a string or a list of text parts, found nothing",
        ),
    ],
)
def test_a_chat_without_text_or_label(messages: Any, problem: str) -> None:
    assert row_problem(["messages"], {"messages": messages}) == problem


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"label": "a"}, "column 'text': the text is empty; fill it or leave it out"),
        ({"text": " ", "label": "a"}, "column 'text': the text is empty; fill it or leave it out"),
        ({"text": 3, "label": "a"}, "column 'text': expected text, found a number; is it the right column?"),
        ({"text": "x"}, "column 'label': the label is empty; fill it or remove the row"),
        ({"text": "x", "label": float("nan")}, "column 'label': the label is empty; fill it or remove the row"),
        ({"text": "x", "label": float("inf")}, "column 'label': expected a label, found a number that is too large"),
        (
            {"text": "x", "label": ["a", "b"]},
            "column 'label': expected one label, found a list; name a column with one class for each row",
        ),
    ],
)
def test_a_row_without_text_or_label(values: dict[str, Any], problem: str) -> None:
    assert row_problem(["text", "label"], values) == problem


def test_other_columns_keep_their_place() -> None:
    form = choose_form(["text", "label", "key", "kind"], {"id": "key", "group": "key", "slices": ["kind"]})
    assert form.beside({"key": 7, "kind": None}) == {"id": "7", "group": "7", "kind": ""}


def test_another_column_holds_acell() -> None:
    form = choose_form(["text", "label", "kind"], {"slices": ["kind"]})
    with pytest.raises(UploadRefused, match="column 'kind': expected a word or a number, found a list"):
        form.beside({"kind": [[1]]})


def test_words_are_those_of_a_run_on_the_command_line() -> None:
    """Labels must not change their names between the two."""
    from pipelines.data import cell

    values = ["x", "", " ü ", None, True, False, 0, 12, 0.5, 1e300]
    assert [word(value) for value in values] == [cell(value) for value in values]
