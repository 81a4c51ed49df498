"""The main job on embedded data: the brand-safety ladder, first the general standard, then one client's own policy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from importlib.resources import as_file, files
from pathlib import Path

from pipelines.activation_store import ActivationStore
from pipelines.config import RunConfig, load_config
from pipelines.durable import discard
from pipelines.errors import RunDirectoryError
from pipelines.records import Event, Finished, Stage
from pipelines.run import finetune

STAGES = "stages"
GENERAL, CLIENT = "general", "client"
REPORTS = ("report.json", "report.html")


def demo(out: Path, stop: Callable[[], bool] = lambda: False, store: ActivationStore | None = None) -> Iterator[Event]:
    """Fine-tune on general examples, continue on the client's, compare all on the client's test part.

    Leaves `OUT/report.html` and `OUT/report.json` of the client's run; both runs are below `OUT/stages/`. An earlier
    demo at `out` is replaced. Events and errors are those of `run.finetune`.

    Raises:
        RunDirectoryError: something else than a demo stands at `out`.
    """
    refuse_what_is_no_demo(out)
    discard(out)
    general, client = (out / STAGES / stage for stage in (GENERAL, CLIENT))
    with as_file(files("pipelines") / "examples" / "brand_safety") as folder:
        yield Stage("general", "fine-tuning on general examples of suitable and unsuitable content")
        yield from _without_end(finetune(general_config(folder), general, stop=stop, store=store))
        yield Stage("client", "continuing on the examples of one client, whose policy differs")
        for event in finetune(client_config(folder, general), client, stop=stop, store=store):
            if isinstance(event, Finished):
                for name in REPORTS:
                    shutil.copyfile(client / name, out / name)
                yield Finished(out, event.sentence)
            else:
                yield event


def refuse_what_is_no_demo(out: Path) -> None:
    """Raise RunDirectoryError unless `out` is absent or holds only what a demo leaves: it will be deleted."""
    if not out.exists():
        return
    stages = [path.name for path in (out / STAGES).iterdir()] if (out / STAGES).is_dir() else ["missing"]
    strange = {path.name for path in out.iterdir()} - {STAGES, *REPORTS} if out.is_dir() else {out.name}
    runs = [name for name in stages if not name.startswith(".trash-")]
    if strange or any(name.strip(".").split(".")[0] not in (GENERAL, CLIENT) for name in runs):
        raise RunDirectoryError(f"{out}: exists and is not an earlier demo; choose another --out")


def general_config(folder: Path) -> RunConfig:
    """The config of the first stage, with the data file beside it."""
    return load_config(folder / "general.yaml", [_path("data.train", folder / "general.jsonl")])


def client_config(folder: Path, general: Path) -> RunConfig:
    """The config of the second stage, continuing from the run directory of the first."""
    data = [_path(f"data.{part}.path", folder / f"client_{part}.jsonl") for part in ("train", "test")]
    return load_config(folder / "client.yaml", [*data, _path("start_from", general)])


def _path(key: str, path: Path) -> str:
    return f"{key}={json.dumps(str(path))}"


def _without_end(events: Iterator[Event]) -> Iterator[Event]:
    return (event for event in events if not isinstance(event, Finished))
