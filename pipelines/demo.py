"""The main job on embedded data and weights: brand safety, general standard."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from importlib.resources import as_file, files
from pathlib import Path

from pipelines.config import RunConfig, load_config
from pipelines.durable import discard
from pipelines.errors import RunDirectoryError
from pipelines.records import Event, Finished
from pipelines.run import finetune

STAGES, STAGE = "stages", "general"
REPORTS = ("report.json", "report.html")


def demo(out: Path, stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Fine-tune on the authored example and compare: `OUT/report.html`, `OUT/report.json`, the run in `OUT/stages/`.

    An earlier demo at `out` is replaced. Events and errors are those of `run.finetune`.

    Raises:
        RunDirectoryError: something else than a demo stands at `out`.
    """
    refuse_what_is_no_demo(out)
    discard(out)
    run = out / STAGES / STAGE
    with as_file(files("pipelines") / "examples" / "brand_safety") as folder:
        for event in finetune(example_config(folder), run, stop=stop):
            if isinstance(event, Finished):
                for name in REPORTS:
                    shutil.copyfile(run / name, out / name)
                yield Finished(out, event.sentence)
            else:
                yield event


def refuse_what_is_no_demo(out: Path) -> None:
    """Raise RunDirectoryError unless `out` is absent or holds only what a demo leaves: it will be deleted."""
    if not out.exists():
        return
    stages = [path.name for path in (out / STAGES).iterdir()] if (out / STAGES).is_dir() else ["missing"]
    strange = {path.name for path in out.iterdir()} - {STAGES, *REPORTS} if out.is_dir() else {out.name}
    if strange or any(name.strip(".").split(".")[0] != STAGE for name in stages):
        raise RunDirectoryError(f"{out}: exists and is not an earlier demo; choose another --out")


def example_config(folder: Path) -> RunConfig:
    """The example's config with the data file beside it."""
    return load_config(folder / "config.yaml", [f"data.train={json.dumps(str(folder / 'general.jsonl'))}"])
