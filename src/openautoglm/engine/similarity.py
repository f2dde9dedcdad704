"""How alike are the texts of a small set? All pairs at once, from n-gram counts made once a text.

Shapes: N texts, G distinct n-grams of one order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy
from numpy.typing import NDArray

Matrix = NDArray[numpy.float64]

_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+|[^\w\s]"
)
_BLEU_ORDER, _CHRF_ORDER, _CHRF_BETA = 4, 6, 2.0
_BLOCK_BYTES = 2**24


def bleu(texts: Sequence[str]) -> Matrix:
    """Return sentence BLEU, 0 to 1, of each text (row) against each as the only reference (column).

    Case-folded words, punctuation and single CJK characters up to order 4, add-one smoothing from bigrams on
    (Lin and Och 2004) and the brevity penalty (Papineni et al. 2002).
    """
    words = [_WORD.findall(text.casefold()) for text in texts]
    lengths = numpy.array([len(row) for row in words], dtype=float)
    logs = numpy.zeros((len(texts), len(texts)))
    for order in range(1, _BLEU_ORDER + 1):
        counts = _counts(words, order)
        smooth = 0.0 if order == 1 else 1.0
        shares = (_matches(counts) + smooth) / numpy.maximum(counts.sum(1) + smooth, 1.0)[:, None]
        logs += numpy.log(numpy.maximum(shares, 1e-60)) / _BLEU_ORDER
    brevity = numpy.minimum(0.0, 1.0 - lengths[None, :] / numpy.maximum(lengths, 1e-9)[:, None])
    found: Matrix = numpy.exp(logs + brevity)
    return found


def chrf(texts: Sequence[str]) -> Matrix:
    """Return chrF2, 0 to 1, of each text (row) against each as the only reference (column).

    Character n-grams up to order 6 without spaces; an order that neither text has does not count (Popović
    2015).
    """
    bare = ["".join(text.split()) for text in texts]
    precision, recall, orders = (numpy.zeros((len(texts), len(texts))) for _ in range(3))
    for order in range(1, _CHRF_ORDER + 1):
        counts = _counts(bare, order)
        matches, totals = _matches(counts), counts.sum(1).astype(float)
        precision += matches / numpy.maximum(totals, 1.0)[:, None]
        recall += matches / numpy.maximum(totals, 1.0)[None, :]
        orders += numpy.maximum(totals[:, None], totals[None, :]) > 0
    precision, recall = precision / numpy.maximum(orders, 1.0), recall / numpy.maximum(orders, 1.0)
    below = _CHRF_BETA**2 * precision + recall
    found: Matrix = (1 + _CHRF_BETA**2) * precision * recall / numpy.maximum(below, 1e-12)
    return found


UTILITIES: dict[str, Callable[[Sequence[str]], Matrix]] = {"bleu": bleu, "chrf": chrf}


def _counts(rows: Sequence[Sequence[str]], order: int) -> NDArray[numpy.int32]:
    """Return how often each n-gram stands in each row, [N, G]."""
    places: dict[tuple[str, ...], int] = {}
    counted = [Counter(zip(*(row[i:] for i in range(order)), strict=False)) for row in rows]
    for counter in counted:
        for gram in counter:
            places.setdefault(gram, len(places))
    counts = numpy.zeros((len(rows), len(places)), dtype=numpy.int32)
    for number, counter in enumerate(counted):
        for gram, count in counter.items():
            counts[number, places[gram]] = count
    return counts


def _matches(counts: NDArray[numpy.int32]) -> Matrix:
    """Return the clipped number of common n-grams of all pairs, [N, N]."""
    texts, grams = counts.shape
    found = numpy.zeros((texts, texts))
    block = max(1, _BLOCK_BYTES // max(1, 4 * texts * grams))
    for first in range(0, texts, block):
        found[first : first + block] = numpy.minimum(counts[first : first + block, None], counts[None]).sum(
            -1
        )
    return found
