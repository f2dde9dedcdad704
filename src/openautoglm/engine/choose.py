"""From the logits of a step to tokens: shaping, the choice itself, log-probabilities. Letters: W rows, V ids."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from openautoglm.core.errors import AutoGLMError, GenerationError
from openautoglm.engine.rows import Rows
from openautoglm.engine.sample import Drawn, likeliest, logprob, sample
from openautoglm.engine.sequence import Sequence

Float32 = NDArray[np.float32]
_DRAFTLESS: Mapping[int, list[int]] = {}


class Sampler(Protocol):
    """What `sample` in `engine.sample` does, maybe faster."""

    def __call__(self, logits_RV: Float32, temperature_R: Float32, top_k_R: NDArray[np.int32], top_p_R: Float32,
                 min_p_R: Float32, uniforms_R: NDArray[np.float64], /) -> tuple[NDArray[np.int32], Float32]: ...


class Chosen(NamedTuple):
    """The outcome for all rows of all slots, in order.

    Attributes:
        ids: of the tokens.
        logprobs: of each, before anything was done to the logits; None where no slot asked.
        logits: as shaped, [W, V].
        raw: rows of logits before shaping, of those rows that were shaped and want log-probabilities.
        errors: what went wrong, by slot.
    """

    ids: list[int]
    logprobs: list[float] | None
    logits: Float32
    raw: dict[int, Float32]
    errors: dict[int, AutoGLMError]

    def alternatives(self, row: int, count: int) -> tuple[tuple[int, float], ...]:
        """The likeliest ids of a row and their log-probabilities."""
        return likeliest(self.raw.get(row, self.logits[row]), count)


class Chooser:
    """Chooses the tokens of the slots.

    Args:
        sampler: of the program, where it has one.
        vocab_size: ids from here on are never chosen.
    """

    def __init__(self, sampler: Sampler | None, vocab_size: int) -> None:
        self._sampler: Sampler = sampler if sampler is not None else sample
        self._vocab_size = vocab_size
        self._known_numbers = np.arange(64)

    def choose(self, logits_WV: Float32, rows: Rows, drafts: Mapping[int, list[int]] = _DRAFTLESS) -> Chosen:
        """Choose a token for every row; a slot's first row is followed by those of its `drafts`."""
        if not logits_WV.flags.writeable:
            logits_WV = logits_WV.copy()
        if self._vocab_size < logits_WV.shape[1]:
            logits_WV[:, self._vocab_size:] = -np.inf
        errors: dict[int, AutoGLMError] = {}
        if not (rows.shaped or rows.drawn or rows.scored):
            ids = logits_WV.argmax(1)
            best = logits_WV[self._numbers(len(ids)), ids]
            if not all(map(math.isfinite, best.tolist())):
                self._name_bad(np.where(np.isfinite(best), ids, -1), logits_WV, rows, drafts, errors)
            return Chosen(ids.tolist(), None, logits_WV, {}, errors)
        raw = self._shape(logits_WV, rows, drafts, errors) if rows.shaped else {}
        drawn = self._draw(logits_WV, rows, drafts)
        if int(drawn.ids.min()) < 0:
            self._name_bad(drawn.ids, logits_WV, rows, drafts, errors)
        logprobs = drawn.logprobs.tolist()
        for row, before in raw.items():
            logprobs[row] = logprob(before, int(drawn.ids[row]))
        return Chosen(drawn.ids.tolist(), logprobs, logits_WV, raw, errors)

    def _numbers(self, count: int) -> NDArray[np.int64]:
        if count > len(self._known_numbers):
            self._known_numbers = np.arange(2 * count)
        return self._known_numbers[:count]

    def _draw(self, logits_WV: Float32, rows: Rows, drafts: Mapping[int, list[int]]) -> Drawn:
        count = rows.count
        options = (rows.temperature[:count], rows.top_k[:count], rows.top_p[:count], rows.min_p[:count])
        if drafts:
            counts = np.ones(count, np.int64)
            for slot, draft in drafts.items():
                counts[slot] += len(draft)
            options = tuple(np.repeat(option, counts) for option in options)  # type: ignore[assignment]
        uniforms = np.zeros(len(logits_WV))
        if rows.drawn:
            row = 0
            for slot, sequence in enumerate(rows.sequences):
                mine = 1 + len(drafts.get(slot, ()))
                if sequence.uniforms is not None:
                    for place in range(mine):
                        uniforms[row + place] = sequence.uniforms[sequence.generated + place]
                row += mine
        return Drawn(*self._sampler(logits_WV, *options, uniforms))

    def _shape(self, logits_WV: Float32, rows: Rows, drafts: Mapping[int, list[int]],
               errors: dict[int, AutoGLMError]) -> dict[int, Float32]:
        raw: dict[int, Float32] = {}
        row = 0
        for slot, sequence in enumerate(rows.sequences):
            draft = drafts.get(slot, [])
            if sequence.shaper is not None:
                if sequence.scored:
                    raw.update({row + place: logits_WV[row + place].copy() for place in range(1 + len(draft))})
                try:
                    _shape_one(logits_WV[row:row + 1 + len(draft)], sequence, draft)
                except Exception as error:  # a grammar is foreign code; its fault stays with its request
                    errors[slot] = as_generation_error(error, sequence)
            row += 1 + len(draft)
        return raw

    def _name_bad(self, ids: NDArray[np.integer], logits_WV: Float32, rows: Rows, drafts: Mapping[int, list[int]],
                  errors: dict[int, AutoGLMError]) -> None:
        """Blame rows that have no finite maximum on their slots; a guessed row counts only if it is reached."""
        row = 0
        for slot, sequence in enumerate(rows.sequences):
            draft = drafts.get(slot, [])
            for place in range(1 + len(draft)):
                if ids[row + place] < 0:
                    errors.setdefault(slot, _no_choice(logits_WV[row + place], sequence))
                if place == len(draft) or ids[row + place] != draft[place]:
                    break
            row += 1 + len(draft)


def _no_choice(row_V: Float32, sequence: Sequence) -> GenerationError:
    """Say whose fault it is that there is no token to choose: the model's, or that of a request which forbids all."""
    if sequence.shaper is not None and np.isneginf(row_V).all():
        return GenerationError("leaves no token to choose, together with the request's stop ids and min_tokens",
                               where="grammar" if sequence.ticket.request.grammar is not None else "min_tokens",
                               remedy="lower min_tokens, or leave stop ids out")
    return GenerationError("the model gave no finite logits to choose from", where=f"request {sequence.ticket.number}",
                           remedy="check the weights")


def as_generation_error(error: Exception, sequence: Sequence) -> AutoGLMError:
    """Return the error of a request for whatever went wrong with it."""
    if isinstance(error, AutoGLMError):
        return error
    wrapped = GenerationError(f"failed: {error!r}", where=f"request {sequence.ticket.number}",
                              remedy="see the cause; other requests are not affected")
    wrapped.__cause__ = error
    return wrapped


def _shape_one(logits_TV: Float32, sequence: Sequence, draft: list[int]) -> None:
    """Shape the rows of one slot, each as if the guesses before it had come true."""
    shaper = sequence.shaper
    if shaper is None:
        return
    taken = 0
    try:
        for place, row_V in enumerate(logits_TV):
            shaper.apply(row_V)
            if place == len(draft) or draft[place] in sequence.stops or not shaper.push(draft[place]):
                break
            taken += 1
    finally:
        shaper.pop(draft[:taken])
