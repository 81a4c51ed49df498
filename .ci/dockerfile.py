"""Execute a Dockerfile's COPY and RUN lines in order below an empty directory, where no container engine runs.

Each stage gets a directory; WORKDIR, COPY and RUN happen below it; USER, ENV, ENTRYPOINT and CMD are only read.
Usage: python3 .ci/dockerfile.py Dockerfile EMPTY_DIRECTORY
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path


def instructions(path: Path) -> list[tuple[str, str]]:
    """(INSTRUCTION, rest) of every line, continuation lines joined."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [tuple(line.split(maxsplit=1)) for line in lines if line and not line.startswith("#")]  # type: ignore[misc]


def copy(arguments: list[str], context: Path, work: Path, stages: dict[str, Path]) -> None:
    """COPY [--from=STAGE] SOURCE... TARGET"""
    root = context
    if arguments[0].startswith("--from="):
        root = stages[arguments.pop(0).removeprefix("--from=")]
    *sources, target = arguments
    for source in sources:
        found = root / source.lstrip("/")
        destination = work / target / found.name if target.endswith("/") else work / target
        if found.is_dir():
            shutil.copytree(found, destination, symlinks=True, dirs_exist_ok=True)
        else:
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found, destination)


def main(dockerfile: Path, empty: Path) -> None:
    """Run the file; the first failing RUN line ends it."""
    if any(empty.iterdir()):
        sys.exit(f"{empty}: expected an empty directory")
    stages: dict[str, Path] = {}
    stage = work = empty
    for name, rest in instructions(dockerfile):
        if name == "FROM":
            label = rest.split(" AS ")[1] if " AS " in rest else str(len(stages))
            stage = stages[label] = empty / label
            work = stage
        elif name == "WORKDIR":
            work = stage / rest.lstrip("/")
            work.mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            copy(shlex.split(rest), dockerfile.parent.resolve(), work, stages)
        elif name == "RUN":
            print(f"RUN {rest}", flush=True)
            subprocess.run(["sh", "-e", "-c", rest], cwd=work, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
