"""What the store of hidden states means for a run: what it holds, what it lacks, what is added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.activation_store import ActivationStore
from pipelines.activations import content_key, filling_work, lacking
from pipelines.backbones.base import Encoding
from pipelines.device import Precision
from pipelines.estimate.plan import Plan
from pipelines.lower_layers import LowerLayers, trunk_layers
from pipelines.trunk import Trunk

TRAINED_WITH = ("train", "validation")  # parts whose states are kept


@dataclass(frozen=True)
class States:
    """Hidden states of a run, by what its miniature has to compute for its own training items.

    Attributes:
        fill: how many times as long the training items take, from what the store holds.
        fill_validation: the same for the validation items.
        new_bytes: that the run adds to the store, embeddings aside.
        mapped_bytes: that training reads and the miniature does not; mapped files count as resident memory.
        begun: depth at which all tokens' states of training items are there afterwards, for embeddings to go on from.
    """

    fill: float = 1.0
    fill_validation: float = 0.0
    new_bytes: int = 0
    mapped_bytes: int = 0
    begun: int = 0


def states_of(
    trunk: Trunk, plan: Plan, small: Plan, precision: Precision, store: ActivationStore | None, scratch: ActivationStore
) -> States:
    """Look into the store; where it holds all training items, the miniature's part is copied to `scratch`.

    Args:
        plan, small: the run and its miniature.
        store: None where the run keeps nothing.
        scratch: the miniature's.
    """
    lower = trunk_layers(trunk, precision)
    if lower is None or store is None:
        return States()
    missing = {part: lacking(lower, plan.encodings[part], store) for part in TRAINED_WITH}
    whole, own = ([e for part in TRAINED_WITH for e in p.encodings[part]] for p in (plan, small))
    filled = filling_work(lower, small.encodings["train"], None)
    fill = filling_work(lower, plan.encodings["train"], store) / filled
    if not missing["train"]:
        _lend(lower, own, store, scratch)
        fill = len(plan.encodings["train"]) / len(small.encodings["train"])  # reading
    return States(
        fill=fill,
        fill_validation=filling_work(lower, plan.encodings["validation"], store) / filled,
        new_bytes=sum(_bytes(lower, part) for part in missing.values()),
        mapped_bytes=_bytes(lower, whole) - _bytes(lower, own),
        begun=lower.depth if lower.kind == "tokens" else 0,
    )


def _bytes(lower: LowerLayers, encodings: Sequence[Encoding]) -> int:
    """Of the states of these items, each content once."""
    rows = {content_key(lower, e): lower.backbone.length(e) if lower.kind == "tokens" else 1 for e in encodings}
    return 2 * lower.width * sum(rows.values())


def _lend(lower: LowerLayers, encodings: Sequence[Encoding], store: ActivationStore, scratch: ActivationStore) -> None:
    """Copy the states of these items, those that the store has."""
    keys = {content_key(lower, encoding) for encoding in encodings}
    states = store.read(lower.fingerprint, keys)
    there = sorted(key for key in keys if key in states)
    scratch.write(lower.fingerprint, lower.ingredients, there, [states[key].clone() for key in there])
