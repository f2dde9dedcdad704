"""What an engine is asked for, and what it hands back piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from openautoglm.core.settings import Settings
from openautoglm.engine.sampling import Sampling

Finish = Literal["stop", "length", "cancelled", "deadline", "error"]
"""Why an answer ended: a stop id, its bound on tokens, its client, its deadline, a fault."""


class GrammarState(Protocol):
    """Where one answer stands in a grammar."""

    def copy(self) -> GrammarState:
        """Return a second one at the same place."""

    def fill_mask(self, out: NDArray[np.uint32]) -> None:
        """Set bit ``i % 32`` of word ``i // 32`` for every id i that may come next, and clear the others."""

    def advance(self, token: int) -> bool:
        """Take a token; False when the grammar does not allow it."""

    def rollback(self, n: int) -> None:
        """Forget the last `n` tokens."""

    @property
    def finished(self) -> bool:
        """Whether nothing may follow."""


class Decoding(Settings):
    """How one answer is generated.

    Attributes:
        max_new_tokens: bound on the generated tokens, the stop id included.
        min_tokens: a stop id is not taken before so many tokens.
        temperature, top_k, top_p, min_p, repetition_penalty, seed, n: as in `Sampling`.
        presence_penalty: taken from the logits of ids that were generated already.
        frequency_penalty: the same, times how often.
        logit_bias: pairs of an id and what is added to its logit.
        stop_ids: ids that end the answer, besides the engine's own.
        ignore_stop: the engine's own stop ids do not end it.
        score: add up the log-probability of the answer; costs a softmax a token.
        logprobs: report every token's log-probability and those of so many likeliest ids; None for neither.
        num_beams, length_penalty, early_stop: as in `Sampling`.
    """

    max_new_tokens: int = Field(default=256, gt=0)
    min_tokens: int = Field(default=0, ge=0)
    temperature: float = Field(default=0.0, ge=0, le=100)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    min_p: float = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=10)
    presence_penalty: float = Field(default=0.0, ge=-10, le=10)
    frequency_penalty: float = Field(default=0.0, ge=-10, le=10)
    logit_bias: tuple[tuple[int, float], ...] = ()
    stop_ids: tuple[int, ...] = ()
    ignore_stop: bool = False
    score: bool = False
    logprobs: int | None = Field(default=None, ge=0, le=100)
    num_beams: int = Field(default=1, ge=1, le=64)
    length_penalty: float = Field(default=1.0, ge=-10, le=10)
    early_stop: bool = False
    n: int = Field(default=1, ge=1, le=256)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _fits_together(self) -> Decoding:
        if self.num_beams > 1 and self.temperature > 0:
            raise ValueError("beams and sampling do not mix: set num_beams to 1 or temperature to 0")
        if self.num_beams > 1 and self.n > self.num_beams:
            raise ValueError(f"{self.num_beams} beams cannot give n = {self.n} candidates: raise num_beams")
        if self.num_beams == 1 and self.temperature == 0 and self.n > 1:
            raise ValueError("greedy decoding gives one candidate: set a temperature, num_beams, or n to 1")
        if self.num_beams > 1 and self.logprobs is not None:
            raise ValueError("beams report no log-probabilities of tokens: leave logprobs out")
        if len({token for token, _ in self.logit_bias}) < len(self.logit_bias):
            raise ValueError("logit_bias names an id twice: give each id once")
        return self

    @classmethod
    def from_sampling(cls, sampling: Sampling, **more: object) -> Decoding:
        """Take over the options that the two have in common; answers get a score, as a `Generator` promises."""
        given = {name: value for name, value in sampling.model_dump().items() if name in cls.model_fields}
        return cls.model_validate({**given, "score": True, **more})

    @property
    def shapes_logits(self) -> bool:
        """Whether logits change before the choice, with a grammar or without."""
        return (self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0
                or bool(self.logit_bias) or self.min_tokens > 0)


Watcher = Callable[[int], bool]
"""Is shown each generated token, one after the other; True ends the answer there."""


@dataclass(frozen=True, eq=False)
class Request:
    """One prompt and what is wanted of it.

    Attributes:
        prompt: ids.
        priority: higher goes first.
        deadline: on the engine's clock, in seconds; an answer that is not ready then ends with what it has.
        grammar: what the answers must follow, at its beginning; each answer takes a copy.
        watch: makes a watcher for each of the answers, e.g. for stop strings.
        salt: pages are shared only among requests of the same salt, e.g. of one client.
    """

    prompt: Sequence[int]
    decoding: Decoding = field(default_factory=Decoding)
    priority: int = 0
    deadline: float | None = None
    grammar: GrammarState | None = None
    watch: Callable[[], Watcher] | None = None
    salt: bytes = b""


class Piece(NamedTuple):
    """What a step added to one answer.

    Attributes:
        copy: number of the answer among the request's `n`.
        ids: new ids, without a stop id.
        logprobs: of those and of the stop id, where asked for; of a beam, which comes as a whole, the one number of its
            answer.
        alternatives: for each of them the likeliest ids and their log-probabilities.
        finish: why the answer ended; None while it goes on.
        queued_s: with a request's first piece: how long it waited before its prompt was begun; None with all others.
    """

    copy: int
    ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    alternatives: tuple[tuple[tuple[int, float], ...], ...] = ()
    finish: Finish | None = None
    queued_s: float | None = None
