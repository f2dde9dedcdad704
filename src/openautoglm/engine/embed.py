"""Mean hidden states of texts, computed piece by piece between the steps of requests.

Letters: T texts, R rows of a step, H hidden size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from openautoglm.core.errors import AutoGLMError, GenerationError
from openautoglm.engine.pages import PagePool
from openautoglm.runtime.layout import Part, lay_out
from openautoglm.runtime.program import Float32, Program

Float64 = NDArray[np.float64]


@dataclass(eq=False)
class _Text:
    """One text under way: its ids, its pages, how many of its rows are computed, and their sum."""

    ids: Sequence[int]
    of: Embedding
    pages: list[int] = field(default_factory=list)
    computed: int = 0
    sum_H: Float64 | None = None

    @property
    def left(self) -> int:
        """Rows to compute."""
        return len(self.ids) - self.computed


class Embedding:
    """Texts whose mean hidden states were asked for together.

    Attributes:
        error: what went wrong; there is no result then.
        done: whether all is computed, or has failed.
    """

    def __init__(self, prompts: Sequence[Sequence[int]], listener: Callable[[Embedding], None] | None) -> None:
        self.texts = [_Text(ids, self) for ids in prompts]
        self.listener = listener
        self.error: AutoGLMError | None = None
        self.done = False

    def result(self) -> Float32:
        """fp32 [T, H]: for each text the mean over its positions.

        Raises:
            AutoGLMError: it has failed.
        """
        if self.error is not None:
            raise self.error
        means = [text.sum_H / len(text.ids) for text in self.texts if text.sum_H is not None]
        return np.stack(means).astype(np.float32)

    def end(self, error: AutoGLMError | None = None) -> None:
        """Nothing more is computed; tell whoever waits."""
        self.error, self.done = error, True
        if self.listener is not None:
            self.listener(self)


class Embedder:
    """Computes hidden states with a program of its own, which is made when the first text comes.

    Args:
        make: makes a program whose steps give the hidden states of all their rows; its cache is that of the pool.
        pool: lends the pages, which are given back as soon as a text is read.
    """

    def __init__(self, make: Callable[[], Program], pool: PagePool) -> None:
        self._make, self._pool = make, pool
        self._program: Program | None = None
        self._waiting: deque[_Text] = deque()
        self._running: deque[_Text] = deque()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to compute."""
        return not (self._waiting or self._running)

    def submit(self, prompts: Sequence[Sequence[int]], listener: Callable[[Embedding], None] | None = None) -> Embedding:
        """Queue texts; `listener` is told within `step` when they are done.

        Raises:
            GenerationError: a text is empty, too long, or holds foreign ids.
            GraphError, ResourceError: this model's program gives no hidden states.
        """
        if self._program is None:
            self._program = self._make()
        plan = self._program.plan
        most = min(plan.spec.max_positions, plan.cache.slots)
        if not prompts:
            raise GenerationError("no text is given", where="prompts", remedy="give at least one")
        for ids in prompts:
            if not 0 < len(ids) <= most:
                raise GenerationError(f"has {len(ids)} tokens, allowed are 1 to {most}", where="prompt",
                                      remedy="shorten the input")
            if min(ids) < 0 or max(ids) >= plan.spec.vocab_size:
                raise GenerationError(f"holds ids outside the vocabulary of {plan.spec.vocab_size}", where="prompt",
                                      remedy="tokenise with the model's own tokenizer")
        made = Embedding(prompts, listener)
        self._waiting.extend(made.texts)
        return made

    def cancel(self, embedding: Embedding) -> None:
        """Compute no more of it; its pages are free at once, and nobody is told."""
        embedding.done = True
        for text in embedding.texts:
            if text in self._running:
                self._running.remove(text)
                self._pool.release(text.pages)
            elif text in self._waiting:
                self._waiting.remove(text)

    def step(self, spare: int = 0) -> bool:
        """Compute some rows; False where there is nothing to do, or too few pages are free.

        Args:
            spare: pages that shall stay free for others.
        """
        if self.idle or self._program is None:
            return False
        self._admit(self._program, spare)
        if not self._running:
            return False
        try:
            self._run(self._program)
        except Exception as error:  # whatever a program raises concerns the texts under way only
            failure = GenerationError(f"a step of the program failed: {error}", where="embedding",
                                      remedy="see the cause; others are not affected")
            failure.__cause__ = error
            for one in dict.fromkeys(text.of for text in self._running):
                self.cancel(one)
                one.end(failure)
        return True

    def _admit(self, program: Program, spare: int) -> None:
        """Lend pages to the next texts, for about as many rows as a step takes."""
        while self._waiting and sum(text.left for text in self._running) < program.plan.max_rows:
            pages = -(-len(self._waiting[0].ids) // self._pool.page_size)
            if pages + spare > self._pool.available:
                return
            self._waiting[0].pages = self._pool.take(pages)
            self._running.append(self._waiting.popleft())

    def _run(self, program: Program) -> None:
        left = program.plan.max_rows
        given: list[tuple[_Text, int]] = []
        for text in self._running:
            count = min(text.left, left)
            if count:
                given.append((text, count))
                left -= count
        layout = lay_out([Part(count, text.computed, text.pages) for text, count in given],
                         page_size=self._pool.page_size, pages=self._pool.pages)
        ids = np.concatenate([np.asarray(text.ids[text.computed:text.computed + count], np.int32)
                              for text, count in given])
        states_RH = program.step(ids, layout.positions, layout, np.arange(len(ids), dtype=np.int32))
        first = 0
        for text, count in given:
            more_H: Float64 = states_RH[first:first + count].sum(0, dtype=np.float64)
            text.sum_H = more_H if text.sum_H is None else text.sum_H + more_H
            text.computed += count
            first += count
            if not text.left:
                self._running.remove(text)
                self._pool.release(text.pages)
                if not any(other.left for other in text.of.texts):
                    text.of.end()
