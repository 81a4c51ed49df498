"""`rootstock embed`: the right states in the right order, columns kept, bad input refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines import embed as embed_module
from pipelines.backbones import load_text_backbone
from pipelines.config import BackboneConfig
from pipelines.embed import embed
from pipelines.errors import BackboneError, ConfigError, DataError, Interrupted
from pipelines.records import Embedded, Stage
from tests.runs import first_run
from tests.toys import tiny_backbone, toy_rows, write_csv

ROWS = toy_rows(7)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "in.csv", ROWS)


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    return tiny_backbone(tmp_path / "tiny")


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_the_mean_of_a_layer_is_written_beside_the_columns(
    layer: int, backbone: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_module, "ROWS", 3)  # several parts
    last = list(embed(str(backbone), str(source), tmp_path / "out.parquet", layer))[-1]
    assert last == Embedded(tmp_path / "out.parquet", 7, 16, layer)
    table = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert table["text"] == [row["text"] for row in ROWS]
    model = load_text_backbone(BackboneConfig(name=str(backbone)), ("0", "1"), 256, seed=0)
    for text, found in zip(table["text"], table["embedding"], strict=True):
        inputs = model.collate(model.encode([text]))
        states = model.model.eval()(**inputs, output_hidden_states=True).hidden_states[layer][0]
        assert np.allclose(found, states.mean(dim=0).detach().numpy(), atol=0.02)


def test_a_run_directory_embeds_with_its_own_column_and_model(tmp_path: Path) -> None:
    run = first_run(tmp_path)
    list(embed(str(run), str(tmp_path / "toy.csv"), tmp_path / "tuned.parquet"))
    list(embed(str(tmp_path / "tiny"), str(tmp_path / "toy.csv"), tmp_path / "plain.parquet"))
    tuned, plain = (pq.read_table(tmp_path / f"{name}.parquet")["embedding"].to_pylist() for name in ("tuned", "plain"))
    assert len(tuned) == 60
    assert not np.allclose(tuned, plain, atol=0.01)


def test_bad_input_is_refused_and_nothing_is_left(backbone: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    empty = tmp_path / "empty.jsonl"
    empty.write_text(json.dumps({"text": "the owl"}) + "\n" + json.dumps({"text": " "}) + "\n", encoding="utf-8")
    cases = [
        (ConfigError, "expected 0 to 3", lambda: embed(str(backbone), str(source), out, 4)),
        (ConfigError, "ends in .parquet", lambda: embed(str(backbone), str(source), tmp_path / "out.csv")),
        (DataError, "no column 'body'", lambda: embed(str(backbone), str(source), out, text="body")),
        (DataError, "line 2", lambda: embed(str(backbone), str(empty), out)),
        (BackboneError, "known without a hub", lambda: embed("nobody/knows", str(source), out)),
    ]
    for error, message, call in cases:
        with pytest.raises(error, match=message):
            list(call())
    with pytest.raises(Interrupted):
        list(embed(str(backbone), str(source), out, stop=lambda: True))
    assert not list(tmp_path.glob("*out*"))


def test_keys_that_the_first_row_lacks_are_left_out_and_named(backbone: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    rows = [{"text": "one", "n": 1}, {"text": "two", "other": [1]}, {"n": 3, "text": "three"}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    events = list(embed(str(backbone), str(source), tmp_path / "out.parquet", format="jsonl"))
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["text", "n", "embedding"]
    assert table["n"].to_pylist() == [1, None, 3]
    (said,) = [event.message for event in events if isinstance(event, Stage) and event.name == "columns"]
    assert said == "keys that the first row lacks are left out: other"
