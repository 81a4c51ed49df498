"""Likely label errors: confident learning on probabilities of items that the model was not trained on.

Northcutt, Jiang and Chuang 2021, "Confident Learning", jair.org/index.php/jair/article/view/12125; library: cleanlab.
"""

from __future__ import annotations

import warnings

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipelines.check.findings import LABEL, Finding, Items, share
from pipelines.duplicates import number_by
from pipelines.records import FloatArray, IntArray

FOLDS = 5
CS = (0.001, 0.01, 0.1)  # inverse regularisation strength, features standardised
LEAST = 50  # items below which confident learning has nothing to learn from


def suspects(items: Items, embeddings: FloatArray, seed: int) -> Finding:
    """Items whose label a cross-validated regression on embeddings strongly doubts.

    Args:
        items: of which the N of the training part are looked at; a class with a single group of them is left out.
        embeddings: of those, (N, D).
        seed: of the folds.
    """
    own = items.of("train")
    labels = [items.labels[i] for i in own]
    numbers, groups = number_by(labels), items.groups[own]
    groups_of_class = np.bincount(np.unique(np.stack([numbers, groups]), axis=1)[0])
    usable = groups_of_class[numbers] >= 2
    own, groups, embeddings = own[usable], groups[usable], embeddings[usable]
    classes, first, targets = np.unique(numbers[usable], return_index=True, return_inverse=True)
    names = [items.labels[own[i]] for i in first]
    folds = _folds(targets, groups, seed) if len(own) >= LEAST and len(classes) > 1 else []
    if not folds:
        sentence = f"not looked for: {len(own)} items of {len(classes)} classes are too few, or of too few groups"
        return Finding("label errors", "fine", sentence)
    probabilities = held_out_probabilities(embeddings, targets, folds)
    found = find_label_issues(targets, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    quality = get_label_quality_scores(targets, probabilities)
    places = []
    for i in found.tolist():
        likelier = names[probabilities[i].argmax()][:LABEL]
        places.append(items.place(own[i], f"{likelier!r} is likelier; its own label has {quality[i]:.2f}"))
    values = {
        "suspects": len(places),
        "looked_at": len(own),
        "held_out_accuracy": float(np.mean(probabilities.argmax(axis=1) == targets)),
    }
    sentence = f"{share(len(places), len(own))} labels are doubtful to a regression that has not seen them"
    if not places:
        return Finding("label errors", "fine", sentence, values)
    return Finding("label errors", "note", f"{sentence}: look at the first of them", values, tuple(places))


def _folds(targets: IntArray, groups: IntArray, seed: int) -> list[tuple[IntArray, IntArray]]:
    """Stratified folds that keep groups together; none where there are too few groups to train on two classes."""
    count = min(FOLDS, len(np.unique(groups)), int(np.bincount(targets).max()))
    if count < 2:
        return []
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer groups than folds is in none of some
        folds = [fold for fold in splitter.split(groups, targets, groups) if len(fold[1])]
    return folds if all(len(np.unique(targets[train])) > 1 for train, _ in folds) else []


def held_out_probabilities(X: FloatArray, targets: IntArray, folds: list[tuple[IntArray, IntArray]]) -> FloatArray:
    """(N, C): every row by a model trained without it and its group, at the regularisation of the least log loss."""
    found: list[FloatArray] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)  # a few examples of many
        warnings.filterwarnings("ignore", "Number of classes in fold", RuntimeWarning)  # the missing one gets 0
        for C in CS:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=200))
            found.append(cross_val_predict(model, X, targets, cv=folds, method="predict_proba"))
    return min(found, key=lambda probabilities: float(log_loss(targets, probabilities)))
