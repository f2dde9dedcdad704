"""What an engine can serve at all, checked before a request is queued."""

from __future__ import annotations

from typing import NamedTuple

from openautoglm.core.errors import GenerationError, ResourceError
from openautoglm.engine.request import Request
from openautoglm.engine.settings import EngineSettings
from openautoglm.runtime.program import Plan

_USUAL_BATCH = 32


class Limits(NamedTuple):
    """What a program and the engine's settings allow.

    Attributes:
        positions: tokens of the longest sequence.
        embedding: ids that a prompt may hold are below.
        vocab_size: ids that may be generated are below.
        pages, page_size: of the cache.
        max_batch: slots.
        max_batch_tokens: rows of a step.
        most_wanted: rows of a step that may have logits.
        max_waiting: requests that the queue takes.
    """

    positions: int
    embedding: int
    vocab_size: int
    pages: int
    page_size: int
    max_batch: int
    max_batch_tokens: int
    most_wanted: int
    max_waiting: int

    @classmethod
    def of(cls, plan: Plan, settings: EngineSettings, vocab_size: int | None) -> Limits:
        """Bring together what a program can and the settings want.

        Raises:
            ResourceError: the settings want more.
        """
        batch = settings.max_batch or min(plan.max_wanted, plan.max_rows, _USUAL_BATCH)
        tokens = settings.max_batch_tokens or plan.max_rows
        if batch > plan.max_wanted or tokens > plan.max_rows or batch > tokens:
            raise ResourceError(f"max_batch {batch} and max_batch_tokens {tokens} do not fit a program of "
                                f"{plan.max_rows} rows and logits of {plan.max_wanted}", where="engine settings",
                                remedy="load the program with larger max_rows and max_wanted, or lower the settings")
        embedding = plan.spec.vocab_size
        return cls(plan.spec.max_positions, embedding, min(vocab_size or embedding, embedding), plan.cache.pages,
                   plan.cache.page_size, batch, tokens, min(plan.max_wanted, tokens), settings.max_waiting)

    def end(self, request: Request) -> int:
        """The length at which an answer to a request ends, the prompt included."""
        return len(request.prompt) + min(request.decoding.max_new_tokens, self.positions - len(request.prompt))

    def pages_of(self, request: Request) -> int:
        """The most pages that a request may need to make progress; the last token of an answer needs no place."""
        whole = -(-(self.end(request) - 1) // self.page_size)
        shared = len(request.prompt) // self.page_size
        return shared + request.decoding.num_beams * (whole - shared)


class Refusal(NamedTuple):
    """Why a request can never be served: the field that is at fault, what is wrong, what to do."""

    field: str
    message: str
    remedy: str


def refusal(request: Request, limits: Limits) -> Refusal | None:
    """Say why a request can never be served; None where it can."""
    prompt, decoding = request.prompt, request.decoding
    if not prompt:
        return Refusal("prompt", "is empty", "give at least one id")
    if len(prompt) >= limits.positions:
        return Refusal("prompt", f"has {len(prompt)} tokens, the model {limits.positions} positions",
                       "shorten the input")
    if min(prompt) < 0 or max(prompt) >= limits.embedding:
        return Refusal("prompt", f"holds ids outside the vocabulary of {limits.embedding}",
                       "tokenise with the model's own tokenizer")
    if decoding.num_beams > limits.max_batch:
        return Refusal("num_beams", f"asks for {decoding.num_beams} beams, the engine runs {limits.max_batch} "
                       "sequences", "lower num_beams, or raise max_batch")
    foreign = [token for token, _ in decoding.logit_bias if not 0 <= token < limits.vocab_size]
    if foreign:
        return Refusal("logit_bias", f"logit_bias names ids {foreign[:3]} outside the vocabulary of "
                       f"{limits.vocab_size}", "name ids that can be generated")
    if request.watch is not None and decoding.num_beams > 1:
        return Refusal("stop", "a watcher sees answers grow, beams do not",
                       "cut the answers of beams when they have ended")
    if limits.pages_of(request) > limits.pages:
        return Refusal("max_new_tokens", f"may need {limits.pages_of(request)} pages of {limits.page_size} tokens, the "
                       f"cache has {limits.pages}",
                       "load the program with more pages, or lower max_new_tokens or num_beams")
    return None


def check(request: Request, limits: Limits, where: str) -> None:
    """Refuse what can never be served.

    Raises:
        GenerationError: the prompt is empty, too long, or holds foreign ids; the options do not fit the engine.
    """
    why = refusal(request, limits)
    if why is not None:
        raise GenerationError(why.message, where=where, remedy=why.remedy)
