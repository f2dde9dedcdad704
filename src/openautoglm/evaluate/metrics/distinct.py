"""distinct-n (Li et al., NAACL 2016): different n-grams over all n-grams of the predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from openautoglm.evaluate.base import Better, Floats, Inputs, Measured, Need, ratio, sacrebleu_words
from openautoglm.evaluate.settings import EvaluateSettings


@dataclass(frozen=True, slots=True)
class Distinct:
    """Share of different n-grams, 0 to 1. It falls as the corpus grows: compare on one test set only."""

    order: int
    better: Better = "neither"
    needs: Need = "texts"

    @property
    def key(self) -> str:
        """``distinct_1``, ``distinct_2``."""
        return f"distinct_{self.order}"

    def measure(self, inputs: Inputs, settings: EvaluateSettings) -> Measured:
        """Return the share; its interval is shifted, since a resample repeats texts."""
        split = sacrebleu_words(settings.tokenize)
        numbers: dict[tuple[str, ...], int] = {}
        pairs: set[tuple[int, int]] = set()
        totals = np.zeros(len(inputs.predictions))
        for case, prediction in enumerate(inputs.predictions):
            tokens = split(prediction.lower())
            grams = [tuple(tokens[start:start + self.order]) for start in range(len(tokens) - self.order + 1)]
            totals[case] = len(grams)
            pairs.update((numbers.setdefault(gram, len(numbers)), case) for gram in grams)
        ordered = np.asarray(sorted(pairs), dtype=np.int64).reshape(-1, 2)
        starts = np.flatnonzero(np.diff(ordered[:, 0], prepend=-1))

        def under(weights: Floats) -> Floats:
            if not len(starts):
                return np.zeros(len(weights))
            drawn = (weights > 0)[:, ordered[:, 1]]
            different = np.logical_or.reduceat(drawn, starts, axis=1).sum(axis=1).astype(float)
            return ratio(different, weights @ totals)

        return Measured(name=f"distinct-{self.order} (lower-cased, {settings.tokenize})",
                        signature=f"openautoglm|distinct-{self.order}|case:lc|tok:{settings.tokenize}|ci:shifted",
                        under=under, shifted=True)
