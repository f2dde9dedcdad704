"""chrF2 (Popović, WMT 2015) by sacrebleu: F-score of character n-grams up to 6, recall weighted twice."""

from __future__ import annotations

from dataclasses import dataclass

from openautoglm.core.extras import require
from openautoglm.evaluate.base import Better, Floats, Inputs, Measured, Need, of_sums, ratio
from openautoglm.evaluate.settings import EvaluateSettings

BETA_SQUARED = 4.0


def chrf_of_sums(sums: Floats) -> Floats:
    """chrF2, 0 to 100, from sums ``[..., 6 * 3]``: for each order, n-grams predicted, wanted, matched."""
    counts = sums.reshape(len(sums), -1, 3)
    predicted, wanted, matched = counts[..., 0], counts[..., 1], counts[..., 2]
    present = ((predicted > 0) & (wanted > 0)).astype(float)
    orders = present.sum(axis=1)
    precision = ratio((present * ratio(matched, predicted)).sum(axis=1), orders)
    recall = ratio((present * ratio(matched, wanted)).sum(axis=1), orders)
    return 100.0 * ratio((1 + BETA_SQUARED) * precision * recall, BETA_SQUARED * precision + recall)


@dataclass(frozen=True, slots=True)
class Chrf:
    """Corpus chrF2; the best reference of a case counts. Needs no tokenisation, so it suits Chinese too."""

    key: str = "chrf"
    better: Better = "higher"
    needs: Need = "texts"

    def measure(self, inputs: Inputs, settings: EvaluateSettings) -> Measured:
        """Return chrF2 of the predictions against all references."""
        CHRF = require("sacrebleu.metrics", "train").CHRF
        metric = CHRF(lowercase=settings.lowercase)
        statistics = metric._extract_corpus_statistics(list(inputs.predictions), inputs.streams())
        case = "lower-cased" if settings.lowercase else "cased"
        return Measured(name=f"chrF2 ({case}, {inputs.reference_words})",
                        signature=f"sacrebleu|{metric.get_signature()}",
                        under=of_sums(statistics, chrf_of_sums))
