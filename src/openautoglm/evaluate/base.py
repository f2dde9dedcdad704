"""What a metric is: per-case statistics, and one vectorised way from their sums to the figure.

A corpus metric is not the mean of its cases, but it is a function of sums over cases (n-gram matches,
lengths, edits). Keeping these statistics per case makes a bootstrap one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from openautoglm.core.extras import require
from openautoglm.evaluate.settings import EvaluateSettings

Floats = NDArray[np.float64]
Better = Literal["higher", "lower", "neither"]
Need = Literal["texts", "fields", "likelihoods"]


class Likelihood(NamedTuple):
    """A model on one reference: sum of its tokens' natural log-probabilities, its tokens, its UTF-8 bytes."""

    logprob: float
    tokens: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that a metric may read; the four sequences have one entry a case."""

    predictions: Sequence[str]
    references: Sequence[Sequence[str]]
    fields: Sequence[tuple[tuple[str, str], ...]] | None = None
    likelihoods: Sequence[Likelihood] | None = None

    @property
    def most_references(self) -> int:
        """The largest number of references of one case."""
        return max(len(references) for references in self.references)

    @property
    def reference_words(self) -> str:
        """How the references are named beside a figure that uses them all."""
        return "all references" if self.most_references > 1 else "one reference"

    def streams(self) -> list[list[str | None]]:
        """References as sacrebleu wants them: one stream per number, None where a case has fewer."""
        return [[references[number] if number < len(references) else None for references in self.references]
                for number in range(self.most_references)]


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric on given texts.

    Attributes:
        name: full name, variant included.
        signature: all settings and versions that the figure depends on.
        under: ``under(weights[resamples, cases]) -> figures[resamples]``; a weight counts how often
            a case is drawn.
        shifted: the resampled figures are biased, since a resample repeats cases; the interval is moved
            by the bias.
    """

    name: str
    signature: str
    under: Callable[[Floats], Floats]
    shifted: bool = False


class Metric(Protocol):
    """One metric: its key in settings, what it needs, which way is better, and how to measure it."""

    @property
    def key(self) -> str: ...
    @property
    def better(self) -> Better: ...
    @property
    def needs(self) -> Need: ...

    def measure(self, inputs: Inputs, settings: EvaluateSettings) -> Measured:
        """Return the metric on `inputs`."""
        ...


def of_sums(statistics: Sequence[Sequence[float]],
            figure: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    """Return ``under`` for a metric that is a function of sums: ``figure(sums[resamples, columns])``."""
    matrix = np.asarray(statistics, dtype=np.float64)
    return lambda weights: figure(weights @ matrix)


def of_mean(values: Sequence[float]) -> Callable[[Floats], Floats]:
    """Return ``under`` for a metric that is 100 times the mean of its cases' values."""
    column = np.asarray(values, dtype=np.float64)
    return lambda weights: 100.0 * (weights @ column) / weights.sum(axis=1)


def ratio(above: Floats, below: Floats) -> Floats:
    """Divide elementwise; 0 where the denominator is 0."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def sacrebleu_words(tokenize: str) -> Callable[[str], list[str]]:
    """Return sacrebleu's tokenisation of that name as a function from text to words."""
    BLEU = require("sacrebleu.metrics", "train").BLEU
    tokenizer = BLEU(tokenize=tokenize, force=True).tokenizer

    def split(text: str) -> list[str]:
        words: list[str] = tokenizer(text.rstrip()).split()
        return words

    return split
