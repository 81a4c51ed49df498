"""What training curves say: still learning, learned well, or learning by heart."""

from __future__ import annotations

from typing import Any

OVER = 1.05  # validation loss over its lowest from which the model learns by heart
NOTHING = 1e-6  # loss that counts as none
UNDER = 0.98  # last validation loss over the one before, below which it was still learning


def training_reading(history: list[dict[str, Any]]) -> dict[str, str]:
    """An over- or under-fitting reading of a run's Step and Validation events.

    Validation loss alone is read: the training loss is class-weighted and has dropout, so that the two cannot be
    compared with each other.
    """
    checks = [event for event in history if event["event"] == "validation"]
    losses = [max(NOTHING, event["loss"]) for event in checks]
    best = [event for event in checks if event["best"]][-1]
    lowest = min(range(len(losses)), key=losses.__getitem__)
    kept = f"Kept: epoch {best['epoch']:g}, the best macro-F1 on validation."
    if len(losses) < 2:
        reading, sentence = "unknown", "One epoch is too few to tell."
    elif losses[-1] > OVER * losses[lowest]:
        reading = "overfitting"
        rise = 100 * (losses[-1] / losses[lowest] - 1)
        sentence = (
            f"Overfitting: validation loss was lowest after epoch {checks[lowest]['epoch']:g} and rose by {rise:.0f}% "
            "since. More epochs will not help; more labels, more frozen layers or a lower learning rate may."
        )
    elif lowest == len(losses) - 1 and losses[-1] < UNDER * losses[-2]:
        reading = "underfitting"
        fall = 100 * (1 - losses[-1] / losses[-2])
        sentence = f"Still learning: validation loss fell by {fall:.0f}% in the last epoch. Try more epochs."
    else:
        reading, sentence = "fitted", "Fitted: validation loss is level at the end."
    return {
        "reading": reading,
        "sentence": f"{sentence} {kept}",
        "caveat": "The reading is a rule of thumb on one run and one validation part.",
    }
