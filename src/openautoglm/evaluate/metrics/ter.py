"""TER, translation edit rate (Snover et al., AMTA 2006) by sacrebleu; lower is better."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from openautoglm.core.extras import require
from openautoglm.evaluate.base import Better, Floats, Inputs, Measured, Need, of_sums, ratio
from openautoglm.evaluate.settings import EvaluateSettings


def ter_of_sums(sums: Floats) -> Floats:
    """TER in per cent from sums ``[..., 2]``: fewest edits, mean reference length."""
    edits, length = sums[:, 0], sums[:, 1]
    return 100.0 * np.where(length > 0, ratio(edits, length), (edits > 0).astype(float))


@dataclass(frozen=True, slots=True)
class Ter:
    """Edits with shifts to the nearest reference, over the mean reference length; lower-cased as in Tercom.

    Minutes on thousands of long references, so it is measured only when it is asked for.
    """

    key: str = "ter"
    better: Better = "lower"
    needs: Need = "texts"

    def measure(self, inputs: Inputs, settings: EvaluateSettings) -> Measured:
        """Return TER of the predictions; Chinese tokenisations split it into characters."""
        TER = require("sacrebleu.metrics", "train").TER
        characters = settings.tokenize in ("zh", "char")
        metric = TER(normalized=characters, asian_support=characters)
        statistics = metric._extract_corpus_statistics(list(inputs.predictions), inputs.streams())
        units = "characters of Chinese" if characters else "tercom"
        return Measured(name=f"TER (lower-cased, {units}, {inputs.reference_words})",
                        signature=f"sacrebleu|{metric.get_signature()}",
                        under=of_sums(statistics, ter_of_sums))
