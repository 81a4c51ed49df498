"""The map in README.md and the repository name the same files."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_LINE = re.compile(r"\s*(?:[-*]\s+|\|\s*)`([^`]+)`\s*(?:\||\s)\s*(\S.*)")


def mapped_paths(readme: str) -> list[tuple[str, str]]:
    """(path, phrase) of every line of the section `## Map`: "- `path` phrase" or "| `path` | phrase |"."""
    parts = re.split(r"^## Map[ \t]*$", readme, maxsplit=1, flags=re.MULTILINE)
    assert len(parts) == 2, "README.md has no section '## Map'"
    section = re.split(r"^#{1,2} ", parts[1], maxsplit=1, flags=re.MULTILINE)[0]
    found = [_LINE.match(line) for line in section.splitlines()]
    return [(match[1], match[2].rstrip(" |")) for match in found if match]


def differences(mapped: list[str], tracked: list[str]) -> dict[str, list[str]]:
    """What the map lacks, what it names in vain, and what it names twice. A folder ends in "/" and covers all below."""
    folders = tuple(path for path in mapped if path.endswith("/"))
    return {
        "tracked but not in the map": [p for p in tracked if p not in mapped and not p.startswith(folders)],
        "in the map but not tracked": [
            p for p in mapped if p not in tracked and not (p in folders and any(t.startswith(p) for t in tracked))
        ],
        "more than once in the map": sorted({p for p in mapped if mapped.count(p) > 1 or p[:-1].startswith(folders)}),
    }


def test_the_map_names_every_tracked_file_and_nothing_else() -> None:
    readme = ROOT / "README.md"
    assert readme.is_file(), "README.md is missing"
    mapped = mapped_paths(readme.read_text(encoding="utf-8"))
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = differences([path for path, _ in mapped], listing.rstrip("\0").split("\0"))
    assert {name: paths for name, paths in found.items() if paths} == {}
    assert [path for path, phrase in mapped if not phrase] == [], "paths without a phrase"


def test_both_forms_of_a_line_are_read_and_the_section_ends_at_the_next() -> None:
    table = "| file | what |\n|---|---|\n| `a.py` | does a |\n"
    readme = f"# X\n- `no` not yet\n## Map\n\n{table}- `d/` data\n## Next\n- `no` more\n"
    assert mapped_paths(readme) == [("a.py", "does a"), ("d/", "data")]
    with pytest.raises(AssertionError, match="no section '## Map'"):
        mapped_paths("# X\n## Maps\n- `a` b\n")


def test_differences_are_named() -> None:
    tracked = ["a.py", "b.py", "data/x", "data/deep/y"]
    assert not any(differences(["a.py", "b.py", "data/"], tracked).values())
    assert differences(["a.py", "a.py", "gone.py", "data/", "data/x", "empty/"], tracked) == {
        "tracked but not in the map": ["b.py"],
        "in the map but not tracked": ["gone.py", "empty/"],
        "more than once in the map": ["a.py", "data/x"],
    }
