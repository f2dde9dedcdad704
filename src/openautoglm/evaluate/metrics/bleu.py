"""BLEU (Papineni et al., ACL 2002) by sacrebleu (Post, WMT 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openautoglm.core.extras import require
from openautoglm.evaluate.base import Better, Floats, Inputs, Measured, Need, of_sums, ratio
from openautoglm.evaluate.settings import EvaluateSettings

ORDERS = 4


def bleu_of_sums(sums: Floats) -> Floats:
    """BLEU, 0 to 100, from sums ``[..., 2 + 2 * 4]``: lengths of prediction and reference, matches, n-grams.

    Orders without a match are smoothed as in mteval-v13a (sacrebleu's ``exp``).
    """
    length, reference_length = sums[:, 0], sums[:, 1]
    matches, ngrams = sums[:, 2:2 + ORDERS], sums[:, 2 + ORDERS:]
    missed = np.logical_and(matches == 0, ngrams > 0)
    smoothed = np.where(missed, 0.5 ** np.cumsum(missed, axis=1), matches)
    precisions = ratio(smoothed, ngrams)
    defined: NDArray[np.bool_] = np.all(precisions > 0, axis=1) & np.any(matches > 0, axis=1)
    mean_log = np.log(np.where(defined[:, None], precisions, 1.0)).mean(axis=1)
    shortness = np.minimum(0.0, 1.0 - reference_length / np.maximum(length, 1.0))
    return np.where(defined, 100.0 * np.exp(mean_log + shortness), 0.0)


@dataclass(frozen=True, slots=True)
class Bleu:
    """Corpus BLEU-4, brevity penalty against the closest reference."""

    key: str = "bleu"
    better: Better = "higher"
    needs: Need = "texts"

    def measure(self, inputs: Inputs, settings: EvaluateSettings) -> Measured:
        """Return BLEU of the predictions against all references."""
        BLEU = require("sacrebleu.metrics", "train").BLEU
        metric = BLEU(lowercase=settings.lowercase, tokenize=settings.tokenize, force=True)
        statistics = metric._extract_corpus_statistics(list(inputs.predictions), inputs.streams())
        case = "lower-cased" if settings.lowercase else "cased"
        return Measured(name=f"BLEU ({case}, {settings.tokenize}, {inputs.reference_words})",
                        signature=f"sacrebleu|{metric.get_signature()}",
                        under=of_sums(statistics, bleu_of_sums))
