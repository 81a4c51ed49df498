"""The real `rootstock` command with bad input: one message on standard error, an exit code, nothing left on disk."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.cli import main
from tests.runs import TFIDF, first_run, report, system
from tests.toys import toy_config, toy_rows, write_csv, write_yaml

# (what is wrong with the config, further arguments, exit code, the message)
CASES: dict[str, tuple[dict[str, Any], list[str], int, str]] = {
    "config": (
        {"training": {"epochs": 0}, "evaluation": {"bootstraps": 100}},
        [],
        2,
        "error: c.yaml has 2 problems:\n"
        "  training.epochs: Input should be greater than 0; found 0\n"
        "  evaluation.bootstraps: unknown key. Did you mean evaluation.bootstrap?\n",
    ),
    "override": (
        {},
        ["--set", "training.learning_rate=no"],
        2,
        "error: c.yaml has a problem:\n"
        "  training.learning_rate: expected a word or a number; found False "
        "(YAML reads yes, no, on and off as true or false: put the word in quotes)\n",
    ),
    "data": (
        {"data": {"train": "bad.csv", "text": "tweet"}},
        ["--processes", "1"],
        1,
        "error: bad.csv, line 3, column 2: expected UTF-8 text, found the byte 0xe9; save the file as UTF-8\n",
    ),
}


def rootstock(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "60"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


Inside = Callable[..., tuple[int, str, str]]


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Inside]:
    """The command in this process, which has its libraries already: exit code, standard output and error."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rootstock", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr()
        return int(end.value.code or 0), told.out, told.err

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("case", CASES)
def test_finetune_refuses(tmp_path: Path, case: str) -> None:
    sections, arguments, code, message = CASES[case]
    raw = toy_config(tmp_path)
    raw["data"]["train"] = "toy.csv"
    for section, values in sections.items():
        raw[section] = raw[section] | values
    write_yaml(tmp_path / "c.yaml", raw)
    (tmp_path / "bad.csv").write_bytes(b"tweet,label\nfine,calm\nx\xe9,harsh\n")
    before = sorted(tmp_path.rglob("*"))

    done = rootstock(tmp_path, "finetune", "c.yaml", "--out", "runs/out", *arguments)

    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith(message)
    told = done.stderr.removesuffix(message).split("\n")
    assert [line for line in told if line] in ([], ["data: reading bad.csv"])  # the stage it was in, and nothing else
    assert done.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before  # no runs/out, no runs/out.partial, no lock


def test_misuse_of_the_command_line(tmp_path: Path) -> None:
    done = rootstock(tmp_path, "finetune", "c.yaml", "--epochs", "3")
    assert done.returncode == 2
    assert "No such option: --epochs" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nA long story"), "CUDA out of memory. Tried to"),
        (MemoryError(), "nothing more could be had"),
    ],
)
def test_out_of_memory_is_no_fault_of_rootstock(
    error: Exception, message: str, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    def app() -> None:
        raise error

    monkeypatch.setattr("service.cli.app", app)
    code, _, told = inside()
    assert code == 1
    assert told.startswith(f"error: out of memory: {message}")
    assert "\nFree some memory" in told


@pytest.mark.slow
def test_compare_scores_a_run_on_a_file_with_other_column_names(tmp_path: Path) -> None:
    first_run(tmp_path)
    rows = [{"tweet": row["text"], "class": row["label"]} for row in toy_rows(30, seed=9)]
    write_csv(tmp_path / "new.csv", rows)
    command = ["compare", "first", "--data", "new.csv", "--text", "tweet", "--label", "class", "--out", "runs/new"]
    done = rootstock(tmp_path, *command, "--no-learning-curve", "--json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["name"] for event in events if event["event"] == "stage"] == [
        "models", "data", "scoring", "scoring", "scoring",
    ]  # fmt: skip
    told = {event["name"]: event["macro_f1"] for event in events if event["event"] == "scored"}
    out = tmp_path / "runs/new"
    assert told == {name: system(out, name)["metrics"]["macro_f1"] for name in ("majority", TFIDF, "fine-tuned")}
    assert events[-1] == {"event": "finished", "path": "runs/new", "sentence": report(out)["verdict"]["sentence"]}


@pytest.mark.slow
def test_compare_refuses_in_one_message(tmp_path: Path) -> None:
    write_csv(tmp_path / "new.csv", toy_rows(30))
    before = sorted(tmp_path.rglob("*"))
    done = rootstock(tmp_path, "compare", "nowhere", "--data", "new.csv")
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if line]
    assert told == ["models: checking 1 run", "error: nowhere: no such directory"]
    assert sorted(tmp_path.rglob("*")) == before
    assert rootstock(tmp_path, "compare", "nowhere").returncode == 2


def bad_inputs(folder: Path) -> dict[str, tuple[list[str], str]]:
    """Name of a file that cannot be classified -> further arguments, and what is said of it."""
    good = "".join(json.dumps(row) + "\n" for row in toy_rows(50))
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress(good.encode(), mtime=0)[:-20])
    (folder / "columns.csv").write_text("body,label\nhello,calm\n")
    (folder / "binary.csv").write_bytes(bytes(range(256)) * 400)
    (folder / "empty.jsonl").write_text("")
    pq.write_table(pa.table({"text": ["x" * (40 << 20)]}), folder / "bomb.parquet", compression="zstd")
    (folder / "good.jsonl").write_text(good)
    (folder / "taken.jsonl").write_text("precious")
    return {
        "cut.jsonl.gz": ([], "the gzip data is damaged or cut off"),
        "columns.csv": ([], "no column 'text' (--text); columns found: body, label. Did you mean `--text body`?"),
        "binary.csv": ([], "found binary data"),
        "empty.jsonl": ([], "the file is empty"),
        "bomb.parquet": ([], "damaged or too large when decoded: "),
        "nothing.csv": ([], "no such file"),
        "good.jsonl": (["--out", "taken.jsonl"], "taken.jsonl: exists already; choose another --out or delete it"),
    }


def test_classify_refuses_in_one_line_and_leaves_nothing(tmp_path: Path, inside: Inside) -> None:
    first_run(tmp_path, baselines=["majority"])
    cases = bad_inputs(tmp_path)
    (tmp_path / "runs").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for name, (arguments, message) in cases.items():
        code, out, err = inside("classify", "first", name, *(arguments or ["--out", "runs/out.jsonl"]))
        last = err.strip().splitlines()[-1]
        assert (code, out) == (1, ""), (name, err)
        assert last.startswith("error: "), (name, err)
        assert message in last, name
        assert sorted(tmp_path.rglob("*")) == before, name
    assert (tmp_path / "taken.jsonl").read_text() == "precious"


@pytest.mark.slow
def test_a_line_of_50_mb_is_one_error_and_the_rest_is_classified(tmp_path: Path) -> None:
    first_run(tmp_path, baselines=["majority"])
    with (tmp_path / "in.jsonl").open("w") as file:
        file.write(json.dumps({"text": "the cat sleeps"}) + "\n")
        file.write(json.dumps({"text": "long " * 10_000_000}) + "\n")
        file.write(json.dumps({"text": "the dog waits"}) + "\n")
    done = rootstock(tmp_path, "classify", "first", "in.jsonl", "--out", "out.csv", "--json")
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["event"] == "classified"
    assert (last["summary"]["rows"], last["summary"]["errors"]) == (3, 1)
    (error,) = (tmp_path / "out.csv.errors.jsonl").read_text().splitlines()
    assert json.loads(error) == {"line": 2, "reason": "a line of more than 16 MiB; split or shorten the text"}
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3


@pytest.mark.slow
def test_classify_reads_standard_input(tmp_path: Path) -> None:
    first_run(tmp_path, baselines=["majority"])
    command = [sys.executable, "-m", "service.cli", "classify", "first", "-", "--out", "out.jsonl", "--format", "csv"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    given = b"n,text\n1,the cat sleeps\n2,the dog waits\n"
    done = subprocess.run(command, cwd=tmp_path, env=environment, input=given, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["n"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == ["1", "2"]


def test_misuse_of_classify_has_code_2(tmp_path: Path, inside: Inside) -> None:
    for arguments, message in (
        (["first"], "expected MODEL_DIR... INPUT"),
        (["first", "x.csv", "--long", "cut"], "'cut' is not one of 'truncate', 'windows'"),
        (["first", "x.csv", "--backend", "onnx"], "'onnx' is not one of 'auto', 'torch', 'openvino'"),
    ):
        code, _, err = inside("classify", *arguments, "--out", "no.jsonl")
        assert code == 2
        assert message in " ".join(err.replace("│", " ").split())  # a box of lines as wide as the terminal


def test_estimate_says_what_a_run_would_take(tmp_path: Path, inside: Inside) -> None:
    write_yaml(tmp_path / "c.yaml", toy_config(tmp_path, baselines=["majority"]))
    code, out, err = inside("estimate", "c.yaml", "--set", "training.epochs=4", "--json")
    assert code == 0, err
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events] == ["stage"] * 4 + ["estimated"]
    assert events[-1]["changes"] == []
    assert events[-1]["figures"]["steps"] == 4 * 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--memory", "500"], "--memory and --time belong to --fit; add it"),
        (["--fit"], "--fit: expected a budget, --memory MIB or --time such as 30m or both"),
        (["--fit", "--time", "30"], "--time: expected a number with its unit, such as 90s, 30m or 2h; found '30'"),
        (["--set", "backbone.freeze=9"], "backbone.freeze: expected at most 3, the hidden layers of tiny; found 9"),
        (
            ["--set", "training.epochs=0"],
            "c.yaml has a problem:\n  training.epochs: Input should be greater than 0; found 0",
        ),
    ],
)
def test_misuse_of_estimate_has_code_2(arguments: list[str], message: str, tmp_path: Path, inside: Inside) -> None:
    raw = toy_config(tmp_path)
    raw["data"]["train"], raw["backbone"]["name"] = "toy.csv", "tiny"
    write_yaml(tmp_path / "c.yaml", raw)
    code, out, err = inside("estimate", "c.yaml", *arguments)
    assert (code, out) == (2, "")
    assert err.endswith(f"error: {message}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vary", "training.epochs"], "--vary training.epochs: expected KEY=V1,V2,..., such as --vary "),
        (["--vary", "training.seed=1,2"], "--vary training.seed: cannot be varied: the seed is varied by --seeds"),
        (["--vary", "data.text=a,b"], "--vary data.text: expected a key of training, backbone or adapter"),
        (["--vary", "training.epochs=1..4"], "a range is for --method optuna; grid needs values with commas between"),
        (["--vary", "backbone.freeze=1,9"], "backbone.freeze=9: cannot be trained: backbone.freeze: expected"),
        (["--trials", "4"], "--trials belongs to --method optuna; add it"),
        (["--method", "optuna"], "--method optuna: expected something to vary, found nothing; add it"),
        (["--seeds", "0"], "--seeds: expected 1 or more, found 0"),
        (["--set", "backbone.freeze=auto"], "backbone.freeze auto chooses a depth by itself; expected depths"),
    ],
)
def test_misuse_of_sweep_has_code_2_one_line_and_leaves_nothing(
    arguments: list[str], message: str, tmp_path: Path, inside: Inside
) -> None:
    write_yaml(tmp_path / "c.yaml", toy_config(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    code, out, err = inside("sweep", "c.yaml", *arguments)
    assert (code, out) == (2, "")
    told = [line for line in err.splitlines() if line.strip()]
    assert told[-1].startswith("error: ")
    assert message in told[-1]
    assert all(line.startswith(("data: ", "settings: ")) for line in told[:-1])
    assert sorted(tmp_path.rglob("*")) == before


def test_sweep_tells_programs_every_training_and_writes_beside_the_output(tmp_path: Path, inside: Inside) -> None:
    write_yaml(tmp_path / "c.yaml", toy_config(tmp_path) | {"output": "runs/mine"})
    command = ["sweep", "c.yaml", "--vary", "training.learning_rate=0.01,1e-6", "--seeds", "1", "--no-prune"]
    code, out, err = inside(*command, "--json")
    assert (code, err) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["number"] for event in events if event["event"] == "trained"] == [1, 2]
    assert (events[-1]["event"], events[-1]["path"]) == ("swept", "runs/mine-sweep")
    saved = json.loads((tmp_path / "runs/mine-sweep/sweep.json").read_text(encoding="utf-8"))
    assert events[-1]["sweep"] == saved
    code, _, err = inside(*command)
    assert (code, err.strip()) == (
        1, "error: runs/mine-sweep: a complete run is here already; choose another --out or delete it",
    )  # fmt: skip


def test_a_sweep_that_is_stopped_says_how_to_go_on(
    tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.sweep import sweep as page

    write_yaml(tmp_path / "c.yaml", toy_config(tmp_path))
    real = page.sweep
    monkeypatch.setattr(page, "sweep", lambda *args: real(*args[:4], lambda: True, args[5]))
    code, _, err = inside("sweep", "c.yaml", "--out", "out")
    assert code == 1
    last = [line for line in err.splitlines() if line.strip()][-1]
    assert last.startswith("error: stopped")
    assert last.endswith("; go on with the same command and --resume")
    monkeypatch.setattr(page, "sweep", real)
    code, _, err = inside("sweep", "c.yaml", "--out", "out", "--resume", "--seeds", "2")
    assert (code, "other settings: from.seeds" in err) == (1, True)
    assert inside("sweep", "c.yaml", "--out", "out", "--resume")[0] == 0
    assert (tmp_path / "out/best.yaml").is_file()


def test_export_says_what_was_checked(tmp_path: Path, inside: Inside) -> None:
    first_run(tmp_path, baselines=["majority"])
    code, out, err = inside("export", "first", "--out", "exported", "--json")
    assert code == 0, err
    assert json.loads(out)["transformers"]["max_difference"] < 1e-3
    assert (tmp_path / "exported/transformers/model.safetensors").is_file()
    code, _, err = inside("export", "first", "--out", "exported")
    assert (code, err.strip()) == (1, "error: exported: exists already; choose another --out or delete it")
    assert inside("export", "first", "--out", "x", "--format", "tflite")[0] == 2


def test_explain_refuses_in_one_line_and_leaves_nothing(tmp_path: Path, inside: Inside) -> None:
    first_run(tmp_path, baselines=["majority"])
    for name, content in (("empty.csv", ""), ("rows.csv", "text\n"), ("columns.csv", "texts\nx\n"), ("x.pdf", "x")):
        (tmp_path / name).write_text(content)
    cases: list[tuple[list[str], int, str]] = [
        (["nowhere"], 1, "nowhere: no such directory"),
        (["tiny"], 1, "tiny: not a complete run directory (manifest.json is missing)"),
        (["first", "--input", "empty.csv"], 1, "empty.csv: the file is empty; expected a first line"),
        (["first", "--input", "rows.csv"], 1, "rows.csv: expected rows below the header, found none; add rows"),
        (["first", "--input", "columns.csv"], 1, "no column 'text' (--column); columns found: texts. Did you mean"),
        (["first", "--input", "x.pdf"], 1, "x.pdf: unknown format '.pdf'; expected .csv"),
        (["first", "--input", "gone.csv"], 1, "gone.csv: no such file"),
        (["first", "--text", ""], 2, "--text: expected a text, found nothing; put it in quotes"),
        (["first", "--text", "a", "--input", "rows.csv"], 2, "expected --text or --input, found both"),
        (["first", "--column", "text"], 2, "--column and --limit are about a file; name it with --input"),
        (["first", "--text", "a", "--out", "first"], 1, "first: a complete run is here already"),
    ]
    before = sorted(tmp_path.rglob("*"))
    for arguments, expected, message in cases:
        code, out, err = inside("explain", *arguments, *([] if "--out" in arguments else ["--out", "out"]))
        told = [line for line in err.strip().splitlines() if line]
        assert (code, out) == (expected, ""), (arguments, err)
        assert told[-1].startswith("error: "), err
        assert message in told[-1]
        assert set(told[:-1]) <= {f"model: checking {arguments[0]}"}
        assert sorted(tmp_path.rglob("*")) == before
    code, _, err = inside("explain", "first", "--limit", "0")
    assert code == 2


def test_explain_tells_programs_every_item(tmp_path: Path, inside: Inside) -> None:
    first_run(tmp_path, baselines=["majority", TFIDF])
    code, out, err = inside("explain", "first", "--text", "the owl sleeps", "--out", "explained", "--json")
    assert (code, err) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events][-2:] == ["explanation", "explained"]
    item = events[-2]["item"]
    assert [word["word"] for word in item["words"]] == ["the", "owl", "sleeps"]
    saved = json.loads((tmp_path / "explained/explain.json").read_text(encoding="utf-8"))
    assert saved["items"] == [item]
    assert "not a cause" in saved["caveat"]
