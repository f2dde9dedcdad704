"""Options of the engine itself: how many sequences run together, how long it waits, when it guesses ahead."""

from __future__ import annotations

from pydantic import Field, model_validator

from openautoglm.core.settings import Settings


class Speculation(Settings):
    """Options of prompt-lookup speculation (Saxena 2023; n-grams of the text so far guess its next tokens).

    Attributes:
        ngram: tokens that must stand in the text already for a guess.
        draft_tokens: most tokens guessed at once.
        max_sequences: guess only while at most so many sequences decode; more keep the machine busy without it.
        min_acceptance: share of guessed tokens that must come true; below, a sequence pauses its guesses.
        patience: guessed tokens after which the share is judged.
        pause: tokens of a first pause; every further pause of the sequence is twice as long.
    """

    ngram: int = Field(default=3, ge=1, le=16)
    draft_tokens: int = Field(default=4, ge=1, le=64)
    max_sequences: int = Field(default=4, ge=1)
    min_acceptance: float = Field(default=0.3, ge=0, le=1)
    patience: int = Field(default=16, ge=1)
    pause: int = Field(default=32, ge=1)


class EngineSettings(Settings):
    """Options of an `Engine`.

    Attributes:
        max_batch: most sequences that run together; as many as the program gives logits for (at most 32) when None.
        max_batch_tokens: most token rows of a step; the program's own bound when None.
        min_batch: sequences worth starting for; fewer wait for company, but no longer than `max_wait`.
        max_wait: seconds.
        max_waiting: most requests in the queue; further ones are refused.
        ageing_s: seconds of waiting that make up for one level of priority, so that nothing waits for ever.
        prefix_cache: keep pages of past tokens for later requests that begin with the same.
        speculation: guess ahead; off when None.
    """

    max_batch: int | None = Field(default=None, ge=1)
    max_batch_tokens: int | None = Field(default=None, ge=1)
    min_batch: int = Field(default=1, ge=1)
    max_wait: float = Field(default=0.0, ge=0)
    max_waiting: int = Field(default=1024, ge=1)
    ageing_s: float = Field(default=10.0, gt=0)
    prefix_cache: bool = True
    speculation: Speculation | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> EngineSettings:
        if self.max_batch is not None and self.max_batch_tokens is not None and self.max_batch > self.max_batch_tokens:
            raise ValueError(f"{self.max_batch} sequences need as many rows, max_batch_tokens is "
                             f"{self.max_batch_tokens}: raise it or lower max_batch")
        return self
