"""The main job on embedded data and weights: brand safety, general standard."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from importlib.resources import as_file, files
from pathlib import Path

from pipelines.config import RunConfig, load_config
from pipelines.durable import discard
from pipelines.errors import RunDirectoryError
from pipelines.records import Event, Finished
from pipelines.run import finetune

STAGES = "stages"


def demo(out: Path, stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Fine-tune on the authored example and compare: `OUT/report.html`, `OUT/report.json`, the run in `OUT/stages/`.

    An earlier demo at `out` is replaced. Events and errors are those of `run.finetune`.

    Raises:
        RunDirectoryError: something else than a demo stands at `out`.
    """
    if out.exists() and not (out / STAGES).is_dir():
        raise RunDirectoryError(f"{out}: exists and is not an earlier demo; choose another --out")
    discard(out)
    run = out / STAGES / "general"
    with as_file(files("pipelines") / "examples" / "brand_safety") as folder:
        for event in finetune(example_config(folder), run, stop=stop):
            if isinstance(event, Finished):
                for name in ("report.json", "report.html"):
                    shutil.copyfile(run / name, out / name)
                yield Finished(out, event.sentence)
            else:
                yield event


def example_config(folder: Path) -> RunConfig:
    """The example's config with the data file beside it."""
    return load_config(folder / "config.yaml", [f"data.train={folder / 'general.jsonl'}"])
