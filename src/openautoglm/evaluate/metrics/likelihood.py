"""Perplexity and bits per byte, from the log-likelihoods that a model gives to the references.

Perplexity is per token, so it compares only models with the same tokenizer; bits per byte compares any two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from openautoglm.core.errors import EvaluationError
from openautoglm.evaluate.base import Better, Inputs, Likelihood, Measured, Need, of_sums
from openautoglm.evaluate.settings import EvaluateSettings


def _sums(inputs: Inputs) -> list[Likelihood]:
    if inputs.likelihoods is None:
        raise EvaluationError("perplexity and bits per byte need log-likelihoods", remedy="evaluate a bundle")
    for number, likelihood in enumerate(inputs.likelihoods, start=1):
        if not (math.isfinite(likelihood.logprob) and likelihood.tokens > 0 and likelihood.bytes > 0):
            raise EvaluationError(f"a log-likelihood must be finite and cover tokens and bytes: {likelihood}",
                                  where=f"case {number}")
    return list(inputs.likelihoods)


@dataclass(frozen=True, slots=True)
class Perplexity:
    """exp of the mean negative log-likelihood per token, over the corpus."""

    key: str = "perplexity"
    better: Better = "lower"
    needs: Need = "likelihoods"

    def measure(self, inputs: Inputs, settings: EvaluateSettings) -> Measured:
        """Return the perplexity. EvaluationError without log-likelihoods or where one is not finite."""
        return Measured(name="Perplexity (per token of the model's tokenizer)",
                        signature="openautoglm|perplexity|per:token",
                        under=of_sums(_sums(inputs), lambda sums: np.exp(-sums[:, 0] / sums[:, 1])))


@dataclass(frozen=True, slots=True)
class BitsPerByte:
    """Negative log2-likelihood per UTF-8 byte, over the corpus."""

    key: str = "bits_per_byte"
    better: Better = "lower"
    needs: Need = "likelihoods"

    def measure(self, inputs: Inputs, settings: EvaluateSettings) -> Measured:
        """Return the bits. EvaluationError without log-likelihoods or where one is not finite."""
        return Measured(name="Bits per byte (UTF-8)", signature="openautoglm|bits-per-byte|encoding:utf-8",
                        under=of_sums(_sums(inputs), lambda sums: -sums[:, 0] / sums[:, 2] / math.log(2)))
