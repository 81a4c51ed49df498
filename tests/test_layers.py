"""Who may import whom: `pipelines` never imports `service`, and its reading order holds."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

import pipelines

ROOT = Path(pipelines.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MODULES = {path.stem for path in ROOT.glob("*.py")} - {"__init__"} | {
    path.parent.name for path in ROOT.glob("*/__init__.py")
}


def imported(source: str, package: str) -> set[str]:
    """Dotted names of everything that a module of `package` imports, anywhere in it and in any form."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            names |= {
                str(a.value) for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)
            }
    return names


def package_of(path: Path) -> str:
    return ".".join(["pipelines", *path.parent.relative_to(ROOT).parts])


def unit(path: Path) -> str:
    """The module of the reading order that a file belongs to: its top folder or its own name."""
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else path.stem


def used_units(path: Path) -> set[str]:
    parts = [name.split(".") for name in imported(path.read_text(encoding="utf-8"), package_of(path))]
    return {p[1] for p in parts if p[0] == "pipelines" and len(p) > 1 and p[1] in MODULES}


def reading_order() -> list[str]:
    """Names in the left column of the indented block in the docstring of pipelines/__init__.py."""
    block = (pipelines.__doc__ or "").split("::\n", 1)[1].split("\n\nLetters", 1)[0]
    columns = [re.split(r"\s{2,}", line.strip())[0] for line in block.splitlines() if line.strip()]
    return [name for column in columns for name in re.split(r", | -> ", column)]


@pytest.mark.parametrize(
    "source",
    [
        "import service",
        "import os, service.cli as x",
        "from service import cli",
        "from service.cli import app",
        "def f():\n    from service import launch",
        "if True:\n    import service.progress",
        "from .. import service",
        "from ..service import cli",
        "import importlib\nimportlib.import_module('service.cli')",
        "from importlib import import_module\nimport_module(name='service')",
        "__import__('service')",
    ],
)
def test_every_form_of_import_is_seen(source: str) -> None:
    """A dot too many would lead out of the package: the two relative forms are those of pipelines/backbones/x.py."""
    found = imported(source, "pipelines.backbones")
    assert any(name.split(".")[0] == "service" or name.startswith("pipelines.service") for name in found), found


def test_the_library_never_imports_the_command_line() -> None:
    wrong = {
        str(path.relative_to(ROOT)): name
        for path in FILES
        for name in imported(path.read_text(encoding="utf-8"), package_of(path))
        if "service" in name.split(".")[:2]
    }
    assert wrong == {}


def test_the_reading_order_names_every_module_once() -> None:
    order = reading_order()
    assert sorted(set(order) - MODULES) == []
    assert sorted(MODULES - set(order)) == [], "add the module to the docstring of pipelines/__init__.py"
    assert len(order) == len(set(order))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_those_before_it(path: Path) -> None:
    order, own = reading_order(), unit(path)
    if own == "__init__":
        assert used_units(path) == set()  # importing the package costs nothing
        return
    later = sorted(used for used in used_units(path) - {own} if order.index(used) > order.index(own))
    assert later == [], f"{own} imports what comes after it in the reading order of pipelines/__init__.py"


def test_the_check_sees_the_imports_it_should() -> None:
    assert used_units(ROOT / "report.py") == {"charts", "highlights"}
    assert {"device", "durable", "errors", "predict", "records", "backbones"} <= used_units(
        ROOT / "baselines" / "embeddings.py"
    )


def test_no_library_can_fetch_code_from_a_hub() -> None:
    """bitsandbytes asks for a kernel while it is imported, transformers where a config names one."""
    assert importlib.util.find_spec("kernels") is None
    with pytest.raises(ImportError):
        importlib.import_module("kernels")
