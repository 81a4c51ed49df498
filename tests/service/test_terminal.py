from __future__ import annotations

from service.terminal import plain


def test_a_terminal_gets_no_control_characters() -> None:
    assert plain("a\x1b[31mb\x07\nc\u202e ü") == "a[31mb\nc ü"
