"""Beam search over pages: beams that share their past share its pages, and copy one only to write to it.

The score of an ended beam is its log-probability / length ** length_penalty, the stop id counted in both (Wu et al.
2016, arXiv 1609.08144, without their constant). Letters: B running beams, V ids.
"""

from __future__ import annotations

import heapq
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from openautoglm.engine.generate import Candidate
from openautoglm.engine.request import Decoding

Member = TypeVar("Member")


class Continuations(NamedTuple):
    """The likeliest next tokens of some beams, likeliest first: log-probability of the whole, beam, token."""

    logprobs: list[float]
    parents: list[int]
    tokens: list[int]


class Step(NamedTuple):
    """The running beams after a step, likeliest first: which beam each goes on from, and with which token."""

    parents: list[int]
    tokens: list[int]


class _Pool:
    """The best ended beams, at most `size`; of equal scores the earlier."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[float, int, Candidate]] = []
        self._added = 0

    def add(self, score: float, candidate: Candidate) -> None:
        self._added += 1
        heapq.heappush(self._heap, (score, -self._added, candidate))
        if len(self._heap) > self._size:
            heapq.heappop(self._heap)

    @property
    def full(self) -> bool:
        return len(self._heap) == self._size

    @property
    def worst(self) -> float:
        return self._heap[0][0]

    def best(self, count: int) -> list[Candidate]:
        order = sorted(self._heap, key=lambda entry: entry[:2], reverse=True)
        return [candidate for _, _, candidate in order[:count]]


class BeamGroup(Generic[Member]):
    """The search of one prompt.

    A search ends when its beams reach `limit` tokens, or when `num_beams` have ended and no running beam would score
    better if it ended now (with `early_stop`, as soon as that many have ended).

    Attributes:
        members: the sequences of the running beams, likeliest first; one before the first step.
        done: whether the search has ended.
    """

    def __init__(self, first: Member, decoding: Decoding, stops: frozenset[int], limit: int) -> None:
        self._decoding, self._stops, self._limit = decoding, stops, limit
        self._first = first
        self.restart()

    def restart(self) -> Member:
        """Begin anew; return the one member that is left, the first."""
        self.members = [self._first]
        self.done = False
        self._beams: list[tuple[int, ...]] = [()]
        self._scores = [0.0]
        self._pool = _Pool(self._decoding.num_beams)
        return self._first

    def advance(self, logits_BV: NDArray[np.float32]) -> Step:
        """Take the likeliest continuations of the running beams, whose logits come in the order of `members`."""
        width = self._decoding.num_beams
        found = _continuations(logits_BV, self._scores, width * (1 + len(self._stops)))
        beams, scores, parents = list[tuple[int, ...]](), list[float](), list[int]()
        length = len(self._beams[0]) + 1
        for rank, (logprob, parent, token) in enumerate(zip(*found, strict=True)):
            if token in self._stops:
                if rank < width and logprob > -np.inf:
                    self._pool.add(self._score(logprob, length), Candidate(self._beams[parent], logprob, True))
            else:
                beams.append((*self._beams[parent], token))
                scores.append(logprob)
                parents.append(parent)
                if len(beams) == width:
                    break
        while beams and len(beams) < width:  # a vocabulary so small: fill up with beams that cannot win
            beams.append(beams[0])
            scores.append(-np.inf)
            parents.append(parents[0])
        self._beams, self._scores = beams, scores
        self.done = not beams or length == self._limit or scores[0] == -np.inf or self._settled(length)
        if length == self._limit:
            for beam, score in zip(beams, scores, strict=True):
                if score > -np.inf:
                    self._pool.add(self._score(score, length), Candidate(beam, score, False))
        return Step(parents, [beam[-1] for beam in beams])

    def best(self) -> list[Candidate]:
        """The best `n` ended beams, best first; what runs on counts as ended, where too few have."""
        if not self.done:
            for beam, score in zip(self._beams, self._scores, strict=True):
                self._pool.add(self._score(score, max(len(beam), 1)), Candidate(beam, score, False))
        return self._pool.best(self._decoding.n)

    def _settled(self, length: int) -> bool:
        if not self._pool.full:
            return False
        return self._decoding.early_stop or self._pool.worst >= self._score(self._scores[0], length)

    def _score(self, logprob: float, length: int) -> float:
        return float(logprob / length**self._decoding.length_penalty)


def _continuations(logits_BV: NDArray[np.float32], scores: list[float], count: int) -> Continuations:
    """The `count` likeliest of all beams and tokens; lower beams and ids first among equals."""
    vocab = logits_BV.shape[1]
    most = min(count, vocab)
    shifted = logits_BV - logits_BV.max(1, keepdims=True)
    logprobs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    if most < vocab:
        tokens = np.sort(np.argpartition(logprobs, vocab - most, axis=1)[:, vocab - most:], axis=1)
    else:
        tokens = np.broadcast_to(np.arange(vocab), logprobs.shape)
    totals = (np.array(scores)[:, None] + np.take_along_axis(logprobs, tokens, 1)).ravel()
    order = np.argsort(-totals, kind="stable")[:count]
    return Continuations(totals[order].tolist(), (order // most).tolist(), tokens.ravel()[order].tolist())
