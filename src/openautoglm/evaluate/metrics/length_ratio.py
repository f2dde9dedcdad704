"""Corpus length ratio: tokens of the predictions over tokens of the closest references, as in BLEU."""

from __future__ import annotations

from dataclasses import dataclass

from openautoglm.evaluate.base import Better, Inputs, Measured, Need, of_sums, ratio, sacrebleu_words
from openautoglm.evaluate.settings import EvaluateSettings


@dataclass(frozen=True, slots=True)
class LengthRatio:
    """1 where the predictions are as long as their references; below 1, BLEU takes its brevity penalty."""

    key: str = "length_ratio"
    better: Better = "neither"
    needs: Need = "texts"

    def measure(self, inputs: Inputs, settings: EvaluateSettings) -> Measured:
        """Return the ratio of summed lengths."""
        split = sacrebleu_words(settings.tokenize)
        lengths = []
        for prediction, references in zip(inputs.predictions, inputs.references, strict=True):
            own = len(split(prediction))
            others = [len(split(reference)) for reference in references]
            lengths.append((own, min(others, key=lambda other: (abs(other - own), other))))
        return Measured(name=f"Length ratio ({settings.tokenize}, closest reference)",
                        signature=f"openautoglm|length-ratio|tok:{settings.tokenize}|refs:closest",
                        under=of_sums(lengths, lambda sums: ratio(sums[:, 0], sums[:, 1])))
