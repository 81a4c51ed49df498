"""A second opinion on attributions: each word blanked by itself, and how much of the score goes with it.

Occlusion (Zeiler and Fergus 2014, arXiv 1311.2901) asks another question than integrated gradients: what is lost where
one word is missing and all others stay. Of a word that stands twice, neither is missed; so the two may well differ.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import spearmanr

from pipelines.attributions import Attribution, Margin
from pipelines.backbones import Backbone
from pipelines.records import FloatArray


def drops(backbone: Backbone, found: Attribution) -> FloatArray:
    """By how much F falls, in logits, where a word is blanked; one for every word. Same F and blank as in `found`."""
    if not found.words:
        return np.empty(0)
    margin = Margin(backbone, found.encoding, found.towards, found.against)
    occluded = [backbone.blanked(found.encoding, word.positions) for word in found.words]
    fallen: FloatArray = found.score - margin.of(occluded)
    return fallen


def rank_agreement(weights: FloatArray, fallen: FloatArray) -> float | None:
    """Spearman's rank correlation of two opinions on the words, -1 to 1; None where a rank says nothing."""
    if min(len(np.unique(weights)), len(np.unique(fallen))) < 2:
        return None
    return float(spearmanr(weights, fallen).statistic)
