"""How alike are the texts of a small set? All pairs at once, from n-gram counts made once a text.

Shapes: N texts, G distinct n-grams of one order.
"""

from __future__ import annotations

import math
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


def bleu_to(references: Sequence[str], texts: Sequence[str]) -> Matrix:
    """Return sentence BLEU, 0 to 1, of each text against all references together, [N].

    As `bleu`; an n-gram counts up to the most often that one reference has it, and the closest reference's length (the
    shorter of two) sets the brevity penalty.
    """
    known = [_WORD.findall(text.casefold()) for text in references]
    found = numpy.zeros(len(texts))
    most = [_most(known, order) for order in range(1, _BLEU_ORDER + 1)]
    for number, text in enumerate(texts):
        words = _WORD.findall(text.casefold())
        closest = min((len(row) for row in known), key=lambda length: (abs(length - len(words)), length))
        log = min(0.0, 1.0 - closest / max(len(words), 1e-9))
        for order in range(1, _BLEU_ORDER + 1):
            counter = _grams(words, order)
            smooth = 0.0 if order == 1 else 1.0
            matches = sum(min(count, most[order - 1][gram]) for gram, count in counter.items()) + smooth
            log += math.log(max(matches / max(counter.total() + smooth, 1.0), 1e-60)) / _BLEU_ORDER
        found[number] = math.exp(log)
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


def _grams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    """Count the n-grams of one text."""
    return Counter(zip(*(words[i:] for i in range(order)), strict=False))


def _most(rows: Sequence[Sequence[str]], order: int) -> Counter[tuple[str, ...]]:
    """Count each n-gram as often as the row that has it most."""
    most: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        most |= _grams(row, order)
    return most


def _counts(rows: Sequence[Sequence[str]], order: int) -> NDArray[numpy.int32]:
    """Return how often each n-gram stands in each row, [N, G]."""
    places: dict[tuple[str, ...], int] = {}
    counted = [_grams(row, order) for row in rows]
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
