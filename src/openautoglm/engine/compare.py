"""How far two programs are from each other in decoding: the same texts are fed to both, token by token.

Prompts are read in one piece, as in serving; every further token is a step of its own for each text, so what a cache in
fewer bits costs is in the figures. Letters: N texts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee

import numpy as np
from numpy.typing import NDArray

from openautoglm.core.errors import GenerationError
from openautoglm.engine.engine import Engine
from openautoglm.engine.pages import PagePool
from openautoglm.runtime.layout import Part, lay_out
from openautoglm.runtime.program import Float32, Program

Text = tuple[Sequence[int], int]
"""Ids, and the first of them that is predicted; those before are the prompt."""
MOST_TOGETHER = 64


@dataclass(frozen=True)
class Divergence:
    """Figures over all predicted tokens of some texts, in nats where they are logarithms.

    Attributes:
        tokens: predicted.
        kl: mean of the Kullback-Leibler divergence of the second program's distribution from the first's.
        agreement: share of tokens whose likeliest continuation is the same.
        nll: mean negative log-likelihood of the given tokens, by each program.
    """

    tokens: int
    kl: float
    agreement: float
    nll: tuple[float, float]

    @property
    def perplexity(self) -> tuple[float, float]:
        """Per token, by each program."""
        first, second = np.exp(self.nll)
        return float(first), float(second)


def compare(first: Engine, second: Engine, texts: Sequence[Text], advance: Callable[[int], None] = lambda done: None
            ) -> Divergence:
    """Feed texts to two idle engines in step, and compare what they predict; one engine may be given as both.

    Args:
        advance: is told of every group of texts that is done, how many.

    Raises:
        GenerationError: an engine is not idle, the vocabularies differ, there is nothing to predict, or a text has no
            prompt, foreign ids, or is longer than a model or its cache.
    """
    for engine in (first, second):
        if not engine.idle:
            raise GenerationError("requests are under way", remedy="compare before or after them")
    sizes = [engine.limits.vocab_size for engine in (first, second)]
    if sizes[0] != sizes[1]:
        raise GenerationError(f"the vocabularies differ: {sizes[0]:,} and {sizes[1]:,} ids", where="compare",
                              remedy="compare a model with what was made of it")
    together = min(MOST_TOGETHER, *(_most_together(engine, texts) for engine in (first, second)))
    total, kl, same, nll = 0, 0.0, 0, np.zeros(2)
    for start in range(0, len(texts), together):
        group = texts[start:start + together]
        for given, one, other in zip(*_steps(first, second, group), strict=True):
            ids = np.fromiter((group[number][0][at] for number, at in given), np.int64, len(given))
            found = _distance(one[:, :sizes[0]], other[:, :sizes[0]], ids)
            total, kl, same, nll = total + len(ids), kl + found[0], same + found[1], nll + found[2:]
        advance(len(group))
    if not total:
        raise GenerationError("no token is predicted", where="texts", remedy="give texts of two tokens and more")
    return Divergence(total, kl / total, same / total, (float(nll[0] / total), float(nll[1] / total)))


def _steps(first: Engine, second: Engine, group: Sequence[Text]
           ) -> tuple[Iterator[list[tuple[int, int]]], Iterator[Float32], Iterator[Float32]]:
    """Which token of which text each step predicts, and the logits of both programs."""
    one = follow(first.program, first.pool, group)
    if first is second:
        one, same = tee(one)
        return _places(group), one, same
    return _places(group), one, follow(second.program, second.pool, group)


def _places(group: Sequence[Text]) -> Iterator[list[tuple[int, int]]]:
    longest = max(len(ids) - first for ids, first in group)
    for step in range(longest):
        yield [(number, first + step) for number, (ids, first) in enumerate(group) if first + step < len(ids)]


def follow(program: Program, pool: PagePool, group: Sequence[Text]) -> Iterator[Float32]:
    """Yield what a program predicts of some texts: fp32 [N, V], for those that have a further token, in their order.

    The first logits come from the prompts, each further ones from a step with the token before. Pages are given back at
    the end.

    Raises:
        GenerationError: a text has no prompt, foreign ids, or is too long.
    """
    size, vocabulary = program.plan.cache.page_size, program.plan.spec.vocab_size
    for number, (ids, first) in enumerate(group):
        if not 1 <= first <= len(ids) <= min(program.plan.spec.max_positions, program.plan.cache.slots):
            raise GenerationError(f"cannot be followed: {len(ids)} ids, predicted from {first} on",
                                  where=f"text {number}",
                                  remedy="give a prompt, and shorten what is longer than the model or its cache")
        if min(ids) < 0 or max(ids) >= vocabulary:
            raise GenerationError(f"holds ids outside the vocabulary of {vocabulary}", where=f"text {number}",
                                  remedy="tokenise with the model's own tokenizer")
    held: list[list[int]] = []
    try:
        for ids, _ in group:
            held.append(pool.take(-(-len(ids) // size)))
        alive = [number for number, (ids, first) in enumerate(group) if first < len(ids)]
        logits = {number: _read(program, group[number], held[number]) for number in alive}
        step = 0
        while alive:
            yield np.stack([logits[number] for number in alive])
            step += 1
            alive = [number for number in alive if group[number][1] + step < len(group[number][0])]
            if alive:
                at = [(number, group[number][1] + step - 1) for number in alive]
                rows = _run(program, [Part(1, place, held[number]) for number, place in at],
                            [group[number][0][place] for number, place in at], list(range(len(alive))))
                logits = dict(zip(alive, rows, strict=True))
    finally:
        for pages in held:
            pool.release(pages)


def _read(program: Program, text: Text, pages: list[int]) -> Float32:
    """The logits [V] after a prompt."""
    ids, first = text
    for start in range(0, first, program.plan.max_rows):
        count = min(program.plan.max_rows, first - start)
        rows = _run(program, [Part(count, start, pages)], ids[start:start + count], [count - 1])
    found: Float32 = rows[0]
    return found


def _run(program: Program, parts: list[Part], ids: Sequence[int], wanted: list[int]) -> Float32:
    layout = lay_out(parts, page_size=program.plan.cache.page_size, pages=program.plan.cache.pages)
    given = np.asarray(ids, np.int32)
    return np.array(program.step(given, layout.positions, layout, np.asarray(wanted, np.int32)), copy=True)


def _most_together(engine: Engine, texts: Sequence[Text]) -> int:
    """How many texts decode together: as many as steps and cache take."""
    plan = engine.program.plan
    pages = max((-(-len(ids) // plan.cache.page_size) for ids, _ in texts), default=1)
    return max(1, min(plan.max_wanted, plan.max_rows, engine.pool.available // max(pages, 1)))


def _distance(one: Float32, other: Float32, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sums over rows [N, V]: divergence, equal likeliest ids, negative log-likelihood by each."""
    first, second = _log_softmax(one), _log_softmax(other)
    kl = (np.exp(first) * (first - second)).sum()
    rows = np.arange(len(ids))
    same = (first.argmax(-1) == second.argmax(-1)).sum()
    return np.array([kl, same, -first[rows, ids].sum(), -second[rows, ids].sum()])


def _log_softmax(logits: Float32) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return found
