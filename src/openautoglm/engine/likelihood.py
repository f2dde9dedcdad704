"""What a program says of given texts: the log-probability of each token after those before it.

Texts share steps: rows of several go together, long texts are cut, and no step asks for more logits than the program
gives. Letters: W wanted rows, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from openautoglm.core.errors import GenerationError
from openautoglm.engine.pages import PagePool
from openautoglm.runtime.layout import Part, lay_out
from openautoglm.runtime.program import Float32, Program

Float64 = NDArray[np.float64]


@dataclass(eq=False)
class _Text:
    """One text under way: its ids, the first that is asked about, what is computed and what was found."""

    ids: Sequence[int]
    first: int
    pages: list[int] = field(default_factory=list)
    computed: int = 0
    found: list[Float64] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Rows to compute: the last token predicts nothing that is asked for."""
        return len(self.ids) - 1 - self.computed

    def wanted(self, rows: int) -> int:
        """How many of its next `rows` rows predict a token that is asked about."""
        return max(0, self.computed + rows - max(self.computed, self.first - 1))

    def most(self, rows: int, wanted: int) -> int:
        """Rows that it can have of a step that has so many left."""
        before = max(0, self.first - 1 - self.computed)
        return min(self.left, rows, before + wanted)


def token_logprobs(program: Program, pool: PagePool, texts: Iterable[tuple[Sequence[int], int]]) -> list[Float64]:
    """For each text (ids, first), the natural log-probabilities [len(ids) - first] of its ids from `first` on.

    Args:
        pool: lends the pages, which are given back; nothing else may step the program meanwhile.

    Raises:
        GenerationError: a text has foreign ids, no id before `first`, or is longer than the model or the cache.
    """
    waiting = deque(_checked(program, number, ids, first) for number, (ids, first) in enumerate(texts))
    order = list(waiting)
    running: deque[_Text] = deque()
    try:
        while waiting or running:
            _admit(program, pool, waiting, running)
            _step(program, running)
            while running and not running[0].left:
                pool.release(running.popleft().pages)
    finally:
        for text in running:
            pool.release(text.pages)
    return [np.concatenate(text.found) if text.found else np.zeros(0) for text in order]


def _checked(program: Program, number: int, ids: Sequence[int], first: int) -> _Text:
    plan, where = program.plan, f"text {number}"
    if not 1 <= first <= len(ids):
        raise GenerationError(f"has {len(ids)} ids, none can be asked about from {first} on", where=where,
                              remedy="give at least one id before the first that counts")
    if len(ids) > min(plan.spec.max_positions, plan.cache.slots):
        raise GenerationError(f"has {len(ids)} ids, the model has {plan.spec.max_positions} positions and the cache "
                              f"{plan.cache.slots}", where=where, remedy="shorten the text, or load with more pages")
    if min(ids) < 0 or max(ids) >= plan.spec.vocab_size:
        raise GenerationError(f"holds ids outside the vocabulary of {plan.spec.vocab_size}", where=where,
                              remedy="tokenise with the model's own tokenizer")
    return _Text(ids, first)


def _admit(program: Program, pool: PagePool, waiting: deque[_Text], running: deque[_Text]) -> None:
    """Lend pages to the next texts, for about as many rows as a step takes."""
    while waiting and sum(text.left for text in running) < program.plan.max_rows:
        pages = -(-len(waiting[0].ids) // program.plan.cache.page_size)
        if pages > pool.available:
            if not running:
                raise GenerationError(f"needs {pages} pages, {pool.available} are free", where="likelihood",
                                      remedy="wait until running requests end, or load with more pages")
            return
        waiting[0].pages = pool.take(pages)
        running.append(waiting.popleft())


def _step(program: Program, running: deque[_Text]) -> None:
    """Compute rows of the texts in order until the step is full; a later text never overtakes an earlier one."""
    rows, wanted = program.plan.max_rows, program.plan.max_wanted
    given: list[tuple[_Text, int]] = []
    for text in running:
        count = text.most(rows, wanted)
        if count > 0:
            given.append((text, count))
            rows, wanted = rows - count, wanted - text.wanted(count)
        if text.left > count:
            break
    if not given:
        return
    layout = lay_out([Part(count, text.computed, text.pages) for text, count in given],
                     page_size=program.plan.cache.page_size, pages=program.plan.cache.pages)
    ids = np.concatenate([np.asarray(text.ids[text.computed:text.computed + count], np.int32) for text, count in given])
    ends = layout.first_rows[1:].tolist()
    asked = [np.arange(end - text.wanted(count), end, dtype=np.int32)
             for (text, count), end in zip(given, ends, strict=True)]
    logits = program.step(ids, layout.positions, layout, np.concatenate(asked))
    start = 0
    for (text, count), numbers in zip(given, asked, strict=True):
        text.computed += count
        if len(numbers):
            following = np.asarray(text.ids[text.computed - len(numbers) + 1:text.computed + 1])
            text.found.append(_chosen(logits[start:start + len(numbers)], following))
            start += len(numbers)


def _chosen(logits_WV: Float32, ids_W: NDArray[np.int64]) -> Float64:
    """The log-softmax of each row at its id."""
    greatest = logits_WV.max(-1, keepdims=True)
    sums = np.exp(logits_WV - greatest, dtype=np.float32).sum(-1, dtype=np.float64)
    picked = logits_WV[np.arange(len(ids_W)), ids_W].astype(np.float64)
    result: Float64 = picked - greatest[:, 0] - np.log(sums)
    return result
