"""Exact match: share of predictions equal to one of their references, outer white space aside."""

from __future__ import annotations

from dataclasses import dataclass

from openautoglm.evaluate.base import Better, Inputs, Measured, Need, of_mean
from openautoglm.evaluate.settings import EvaluateSettings


@dataclass(frozen=True, slots=True)
class ExactMatch:
    """Per cent of the cases whose prediction is a reference."""

    key: str = "exact_match"
    better: Better = "higher"
    needs: Need = "texts"

    def measure(self, inputs: Inputs, settings: EvaluateSettings) -> Measured:
        """Return the share in per cent."""
        def normal(text: str) -> str:
            return text.strip().lower() if settings.lowercase else text.strip()

        values = [float(normal(prediction) in map(normal, references))
                  for prediction, references in zip(inputs.predictions, inputs.references, strict=True)]
        case = "lower-cased" if settings.lowercase else "cased"
        return Measured(name=f"Exact match % ({case}, {inputs.reference_words})",
                        signature=f"exact-match|case:{'lc' if settings.lowercase else 'mixed'}|strip:yes",
                        under=of_mean(values))
