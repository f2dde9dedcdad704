"""The next token of each row: the reference in numpy for what targets may do faster. Letters: R rows, V ids.

Temperature 0 takes the largest logit, the lowest id among equals. Otherwise the probabilities are the softmax of
logits / temperature; the `top_k` largest are kept and renormalised, of these the fewest of the largest that together
reach `top_p` (Holtzman et al. 2020, arXiv 1904.09751), of these those of at least `min_p` times the largest (Nguyen et
al. 2024, arXiv 2407.01082); among equals lower ids first. The token is the first, in the order of ids, whose cumulative
share exceeds the row's random number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
_BLOCK = 64


class Drawn(NamedTuple):
    """What was chosen: ids [R], -1 for a row that has no finite maximum; their log-probabilities [R] (natural
    logarithm, of the logits given, at temperature 1, without filters)."""

    ids: Int32
    logprobs: Float32


def sample(logits_RV: Float32, temperature_R: Float32, top_k_R: Int32, top_p_R: Float32, min_p_R: Float32,
           uniforms_R: Float64) -> Drawn:
    """Choose one id a row.

    Args:
        top_k_R: 0 for all.
        uniforms_R: in [0, 1); not read where the temperature is 0.
    """
    ids = logits_RV.argmax(1).astype(np.int32)
    rows = np.arange(len(ids))
    best = logits_RV[rows, ids]
    good = np.isfinite(best)
    for row in np.flatnonzero(good & (temperature_R > 0)).tolist():
        ids[row] = _draw(logits_RV[row], float(temperature_R[row]), int(top_k_R[row]), float(top_p_R[row]),
                         float(min_p_R[row]), float(uniforms_R[row]))
    logprobs = np.full(len(ids), -np.inf, np.float32)
    some = rows if good.all() else np.flatnonzero(good)
    logprobs[some] = logits_RV[some, ids[some]] - _log_sums(logits_RV[some], best[some])
    ids[~good] = -1
    return Drawn(ids, logprobs)


def logprob(logits_V: Float32, token: int) -> float:
    """The log-probability of one id."""
    return float(logits_V[token]) - float(_log_sums(logits_V[None], logits_V.max(keepdims=True))[0])


def likeliest(logits_V: Float32, count: int) -> tuple[tuple[int, float], ...]:
    """The likeliest ids and their log-probabilities, likeliest first, lower ids first among equals."""
    if not count:
        return ()
    total = float(_log_sums(logits_V[None], logits_V.max(keepdims=True))[0])
    ids = _largest(logits_V, count)
    ids = ids[np.argsort(-logits_V[ids], kind="stable")]
    return tuple((int(i), float(logits_V[i]) - total) for i in ids)


def _log_sums(logits_RV: Float32, best_R: Float32) -> Float64:
    total: Float64 = np.exp(logits_RV - best_R[:, None]).sum(1, dtype=np.float64)
    return np.log(total) + best_R


def _largest(values_V: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Places, in order, of the `count` largest, the lower place among equals."""
    if count >= len(values_V):
        return np.arange(len(values_V))
    return _from(values_V, np.partition(values_V, len(values_V) - count)[len(values_V) - count], count)


def _from(values_V: NDArray[np.floating], least: float, count: int) -> NDArray[np.int64]:
    """Places, in order, of the values above `least`, and of so many equal to it that there are `count`."""
    places = np.flatnonzero(values_V >= least)
    if len(places) > count:
        equal = np.flatnonzero(values_V[places] == least)
        places = np.delete(places, equal[len(equal) - (len(places) - count):])
    return places


def _draw(logits_V: Float32, temperature: float, top_k: int, top_p: float, min_p: float, uniform: float) -> int:
    scaled = logits_V.astype(np.float64) / temperature
    ids = None
    if 0 < top_k < len(scaled):
        ids = _largest(scaled, top_k)
        scaled = scaled[ids]
    chances = np.exp(scaled - scaled.max())
    chances /= chances.sum()
    if top_p < 1:
        kept = _nucleus(chances, top_p)
        ids, chances = (kept if ids is None else ids[kept]), chances[kept]
    if min_p > 0:
        chances = np.where(chances >= min_p * chances.max(), chances, 0.0)
    reached = chances.cumsum()
    place = int(np.searchsorted(reached, uniform * reached[-1], side="right"))
    if place >= len(chances) or chances[place] == 0:  # rounding took the number past the last one kept
        place = int(np.flatnonzero(chances)[-1])
    return place if ids is None else int(ids[place])


def _nucleus(chances: Float64, top_p: float) -> NDArray[np.int64]:
    """Places, in order, of the fewest largest whose sum reaches `top_p`."""
    falling = np.sort(chances)[::-1]
    count = int(np.searchsorted(falling.cumsum(), top_p, side="left")) + 1
    return _from(chances, float(falling[min(count, len(falling)) - 1]), count)


class Uniforms:
    """Random numbers in [0, 1) of one answer: the number of a place depends on the prompt, the seed, the copy's
    number and the place, on nothing else.

    Counter-based: Philox (Salmon et al. 2011) keyed by a digest, its counter set to the place.
    """

    def __init__(self, prompt: Sequence[int], seed: int, copy: int) -> None:
        digest = hashlib.sha256(np.asarray(prompt, dtype="<i8").tobytes()).digest()
        words = [int.from_bytes(digest[i:i + 4], "little") for i in range(0, 32, 4)]
        self._entropy = [seed, copy, *words]
        self._block, self._numbers = -1, list[float]()

    def __getitem__(self, place: int) -> float:
        block, offset = divmod(place, _BLOCK)
        if block != self._block:
            bits = np.random.Philox(np.random.SeedSequence(self._entropy))
            bits.advance(block * _BLOCK // 4)  # a count of the counter gives four numbers
            self._block, self._numbers = block, np.random.Generator(bits).random(_BLOCK).tolist()
        return self._numbers[offset]
