"""A job's process gives way to everything else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service import priority
from service.priority import AUTOGROUP

SAY = "import os; from service.priority import give_way; give_way(); print(os.nice(0))"


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel has no autogroups")
def test_process_and_session_have_the_lowest_priority() -> None:
    code = f"{SAY}; print(open('{AUTOGROUP}').read())"
    said = subprocess.check_output([sys.executable, "-c", code], start_new_session=True, text=True)
    assert said.split()[0] == "19"
    assert said.split()[-2:] == ["nice", "19"]


def test_a_kernel_that_is_busy_with_another_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy:
        asked = 0

        def write_text(self, text: str, encoding: str) -> None:
            self.asked += 1
            if self.asked < 3:
                raise BlockingIOError

    busy = Busy()
    monkeypatch.setattr(priority, "AUTOGROUP", busy)
    monkeypatch.setattr(os, "nice", lambda _: None)
    priority.give_way()
    assert busy.asked == 3


def test_without_autogroups_the_process_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(priority, "AUTOGROUP", tmp_path / "none" / "autogroup")
    asked: list[int] = []
    monkeypatch.setattr(os, "nice", asked.append)
    priority.give_way()
    assert asked == [19]
