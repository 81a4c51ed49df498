"""An estimate in a process of its own: resident memory does not shrink, and a second one here would count the first.

`python -m pipelines.estimate.apart` reads a request as JSON from standard input and writes events as JSON lines, the
last of them an `error` where it fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipelines.activation_store import ActivationStore
from pipelines.config import RunConfig, parse_config
from pipelines.errors import Interrupted, RootstockError
from pipelines.estimate.estimate import STOPPED, estimate
from pipelines.records import Estimated, Event, Stage


def estimate_apart(config: RunConfig, stop: Callable[[], bool], store: ActivationStore | None) -> Iterator[Event]:
    """Like `estimate`. Stopping waits for the next event, unless Ctrl-C reaches the other process too."""
    kept_in = None if store is None else {"root": str(store.root.absolute()), "most_bytes": store.most_bytes}
    request = {"config": config.model_dump(mode="json", exclude_unset=True), "store": kept_in}
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    with subprocess.Popen(
        [sys.executable, "-P", "-m", __spec__.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": path},
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request))
            process.stdin.close()
            for line in process.stdout:
                yield _event(json.loads(line))
                if stop():
                    break
        finally:
            process.kill()
    if stop():
        raise Interrupted(STOPPED)


def _event(said: dict[str, Any]) -> Event:
    """Raises RootstockError for an error of the other process."""
    if said["event"] == "error":
        error = RootstockError(said["message"])
        error.exit_code = said["exit_code"]
        raise error
    if said["event"] == "estimated":
        return Estimated(tuple(said["changes"]), said["figures"])
    return Stage(said["name"], said["message"])


def main() -> int:
    """Returns the exit code."""
    request = json.load(sys.stdin)
    kept_in = request["store"]
    store = None if kept_in is None else ActivationStore(Path(kept_in["root"]), kept_in["most_bytes"])
    try:
        for event in estimate(parse_config(request["config"]), store=store):
            print(json.dumps(event.to_json()), flush=True)
    except RootstockError as error:
        print(json.dumps({"event": "error", "message": str(error), "exit_code": error.exit_code}), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
