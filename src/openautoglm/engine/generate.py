"""The small interface of an engine: prompts of ids in, candidates out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from openautoglm.engine.sampling import Sampling


class Candidate(NamedTuple):
    """One generated sequence.

    Attributes:
        ids: the generated ids, without the stop id.
        logprob: sum of the log-probabilities of the ids and of the stop id (natural logarithm, temperature 1,
            no filters; a beam search takes them after its repetition penalty).
        finished: a stop id ended it; False when the bound on tokens did.
    """

    ids: tuple[int, ...]
    logprob: float
    finished: bool


class Generator(Protocol):
    """An engine. Knows ids, not text."""

    def generate(self, prompts: Sequence[list[int]], settings: Sampling) -> list[list[Candidate]]:
        """Return `settings.n` candidates for each prompt, in the order of the prompts, best first for beams.

        Raises:
            GenerationError: a prompt is empty, holds foreign ids, or leaves no room for an answer.
        """
