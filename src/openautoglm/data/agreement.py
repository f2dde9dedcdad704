"""How typical each reference is among the references of its own source.

Data-to-text sets give several references per source; some are slips of the writer: values left out, facts
made up. A reference that shares its n-grams with the others says what most writers say. Weighting the loss by
that agreement moves the model towards the consensus which multi-reference metrics reward; no row is dropped.
The measure is the document-frequency form of the pairwise n-gram F1 of minimum-Bayes-risk choice (Kumar and
Byrne, 2004), linear in the number of references.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from openautoglm.data.tokens import TokenStore

MAX_ORDER = 4
MIN_REFERENCES = 3


def agreement(references: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Return for each of R references (token ids) its mean n-gram F1 (n = 1..4) with the others, [R], 0 to 1.

    A single reference has nobody to agree with and gets 0.
    """
    count = len(references)
    scores = np.zeros(count)
    if count < 2:
        return scores
    for order in range(1, MAX_ORDER + 1):
        grams = [set(zip(*(ids[i:] for i in range(order)), strict=False)) for ids in references]
        spread = Counter(gram for one in grams for gram in one)
        total = sum(len(one) for one in grams)
        for row, one in enumerate(grams):
            shared = sum(spread[gram] - 1 for gram in one)
            size = (count - 1) * len(one) + (total - len(one))
            scores[row] += 2 * shared / size if size else 0.0
    return scores / MAX_ORDER


def agreement_weights(references: Sequence[Sequence[int]], strength: float) -> NDArray[np.float64]:
    """Return the loss weight of each reference of one source, [R], with mean 1.

    ``exp(strength * z)`` of the standardised agreement; 1 for fewer than three references or strength 0.
    """
    count = len(references)
    if count < MIN_REFERENCES or strength == 0:
        return np.ones(count)
    scores = agreement(references)
    spread = float(scores.std())
    if math.isclose(spread, 0.0, abs_tol=1e-9):
        return np.ones(count)
    weights = np.exp(strength * (scores - scores.mean()) / spread)
    return np.asarray(weights * count / weights.sum())


def store_weights(store: TokenStore, strength: float) -> NDArray[np.float32]:
    """Return the loss weight of every example of a store, [examples], from the targets that share its source."""
    weights = np.ones(len(store), np.float32)
    order = np.argsort(store.groups, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(store.groups[order])) + 1):
        targets = [store[index][store.prompts[index] :].tolist() for index in members]
        weights[members] = agreement_weights(targets, strength)
    return weights
