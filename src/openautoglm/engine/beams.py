"""Beam search of one batch: the beams of many prompts step together.

The score of an ended beam is its log-probability / length ** length_penalty, the stop id counted in both (Wu
et al. 2016, arXiv 1609.08144, without their constant). Shapes: P prompts, K beams, V ids.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import torch

from openautoglm.engine.decode import SHRINK_BELOW
from openautoglm.engine.decoder import Decoder
from openautoglm.engine.generate import Candidate
from openautoglm.engine.pick import penalise
from openautoglm.engine.sampling import Sampling


class _Pool:
    """The best ended beams of one prompt, at most `size`."""

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

    def best(self, n: int) -> list[Candidate]:
        return [
            candidate for _, _, candidate in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)[:n]
        ]


class _Search:
    """The running beams of one prompt: ids and log-probability of each, likeliest first."""

    def __init__(self, prompt: list[int], settings: Sampling, stops: frozenset[int], limit: int) -> None:
        self._settings, self._stops, self._limit = settings, stops, limit
        self.prompt = prompt
        self.beams: list[tuple[int, ...]] = [()] * settings.num_beams
        self.scores = [0.0] + [-torch.inf] * (settings.num_beams - 1)
        self.pool = _Pool(settings.num_beams)
        self.done = False

    def advance(self, logprobs: list[float], parents: list[int], tokens: list[int]) -> list[int]:
        """Take the likeliest continuations, likeliest first; return the parent of each new beam."""
        if self.done:
            return list(range(len(self.beams)))
        beams, scores, origins = [], [], []
        length = len(self.beams[0]) + 1
        for rank, (logprob, parent, token) in enumerate(zip(logprobs, parents, tokens, strict=True)):
            if token in self._stops:
                if rank < len(self.beams) and logprob > -torch.inf:
                    self.pool.add(self._score(logprob, length), Candidate(self.beams[parent], logprob, True))
            else:
                beams.append((*self.beams[parent], token))
                scores.append(logprob)
                origins.append(parent)
                if len(beams) == len(self.beams):
                    break
        self.beams, self.scores = beams, scores
        self.done = length == self._limit or self._settled(length)
        if length == self._limit:
            for beam, score in zip(beams, scores, strict=True):
                self.pool.add(self._score(score, length), Candidate(beam, score, False))
        return origins

    def _settled(self, length: int) -> bool:
        if not self.pool.full:
            return False
        return self._settings.early_stop or self.pool.worst >= self._score(self.scores[0], length)

    def _score(self, logprob: float, length: int) -> float:
        return float(logprob / length**self._settings.length_penalty)


def beam_search(
    decoder: Decoder, prompts: Sequence[list[int]], stops: torch.Tensor, limit: int, settings: Sampling
) -> list[list[Candidate]]:
    """Search each prompt with `settings.num_beams` beams; return its `settings.n` best, best first.

    A search ends when its beams reach `limit` tokens, or when `num_beams` have ended and no running beam
    would score better if it ended now (with `early_stop`, as soon as that many have ended).
    """
    width = settings.num_beams
    stop_ids = frozenset(stops.tolist())
    searches = [_Search(prompt, settings, stop_ids, limit) for prompt in prompts]
    running = searches
    while True:
        logits = decoder.logits_RV
        if settings.repetition_penalty != 1:
            logits = penalise(logits, _seen(running, logits), settings.repetition_penalty)
        scores = torch.tensor([search.scores for search in running], dtype=torch.double, device=stops.device)
        totals = (scores.view(-1, 1) + logits.log_softmax(-1)).view(len(running), -1)
        best, places = totals.topk(min(width * (1 + len(stop_ids)), totals.shape[1]), dim=-1)
        vocab = logits.shape[1]
        parents = [
            search.advance(*found)
            for search, *found in zip(
                running, best.tolist(), (places // vocab).tolist(), (places % vocab).tolist(), strict=True
            )
        ]
        if all(search.done for search in running):
            return [search.pool.best(settings.n) for search in searches]
        _follow(decoder, parents, width, stops.device)
        running = _shrink(decoder, running, width, stops.device)
        decoder.step(
            torch.tensor([beam[-1] for search in running for beam in search.beams], device=stops.device)
        )


def _follow(decoder: Decoder, parents: list[list[int]], width: int, device: torch.device) -> None:
    rows = [number * width + parent for number, origins in enumerate(parents) for parent in origins]
    if rows != list(range(len(rows))):
        decoder.reorder(torch.tensor(rows, device=device))


def _shrink(decoder: Decoder, running: list[_Search], width: int, device: torch.device) -> list[_Search]:
    going = [number for number, search in enumerate(running) if not search.done]
    if len(going) >= SHRINK_BELOW * len(running):
        return running
    rows = torch.tensor(going, device=device)[:, None] * width + torch.arange(width, device=device)
    decoder.select(rows.flatten())
    return [running[number] for number in going]


def _seen(running: Sequence[_Search], logits: torch.Tensor) -> torch.Tensor:
    seen = torch.zeros_like(logits, dtype=torch.bool)
    rows = [(search.prompt, beam) for search in running for beam in search.beams]
    for row, (prompt, beam) in enumerate(rows):
        seen[row, [i for i in (*prompt, *beam) if i < logits.shape[1]]] = True
    return seen
