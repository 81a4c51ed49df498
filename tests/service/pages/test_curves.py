"""Metrics -> lines of a drawing."""

from __future__ import annotations

from service.pages.curves import HEIGHT, WIDTH, drawings


def test_each_metric_is_a_line_over_its_own_steps() -> None:
    metrics = [
        {"step": 10, "train_loss": 1.0},
        {"step": 20, "train_loss": 0.5, "valid_loss": 0.8, "valid_macro_f1": 0.4},
        {"step": 30, "train_loss": 0.25, "valid_loss": 0.8, "valid_macro_f1": 0.4},  # the last validation's, again
        {"step": 40, "train_loss": 0.0, "valid_loss": 0.6, "valid_macro_f1": 0.9},
    ]
    loss, f1 = drawings(metrics)
    assert (loss.title, loss.low, loss.high, loss.steps) == ("Loss", 0.0, 1.0, 40)
    assert [(line.name, line.last) for line in loss.lines] == [("training", 0.0), ("validation", 0.6)]
    assert loss.lines[0].points.split()[0] == f"{WIDTH / 4:.1f},0.0"
    assert loss.lines[0].points.split()[-1] == f"{WIDTH:.1f},{HEIGHT:.1f}"
    assert len(f1.lines[0].points.split()) == 2


def test_one_point_is_no_line_and_a_flat_one_is_drawn() -> None:
    assert drawings([]) == drawings([{"step": 1, "train_loss": 1.0}]) == []
    (flat,) = drawings([{"step": 1, "train_loss": 1.0, "valid_loss": 2.0}, {"step": 2, "train_loss": 1.5}])
    assert flat.lines[0].points
