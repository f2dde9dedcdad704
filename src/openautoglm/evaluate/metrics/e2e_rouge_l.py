"""ROUGE-L as the E2E NLG challenge and coco-caption count it; not the figure of Google's rouge-score.

LCS F-measure of Lin (2004, section 3) with beta 1.2, where precision and recall are each the maximum over
the references, possibly of two different ones (Microsoft COCO Captions, arXiv:1504.00325, section 3).
The challenge tokenised by the Stanford PTB tokenizer, lower-cased, punctuation dropped; ``words`` follows
these rules for plain English, so figures can differ slightly from the challenge's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from openautoglm.evaluate.base import Better, Inputs, Measured, Need, of_mean, sacrebleu_words
from openautoglm.evaluate.settings import EvaluateSettings

BETA = 1.2
_WORD = re.compile(r"n't\b|'(?:s|m|d|ll|re|ve)\b|\w+?(?=n't\b)|\w+(?:[-.,/&]\w+)*|[^\w\s]")
_DROPPED = frozenset("'`\".?!,:-;") | {"--", "..."}


def words(text: str) -> list[str]:
    """Split as the PTB tokenizer does, lower-cased, without the punctuation that coco-caption drops."""
    return [word for word in _WORD.findall(text.lower().replace("’", "'")) if word not in _DROPPED]


def common_length(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence, by bit-parallel dynamic programming (Hyyrö, 2004)."""
    places: dict[str, int] = {}
    for index, word in enumerate(left):
        places[word] = places.get(word, 0) | 1 << index
    full = (1 << len(left)) - 1
    row = full
    for word in right:
        match = row & places.get(word, 0)
        row = ((row + match) | (row - match)) & full
    return len(left) - row.bit_count()


def rouge_l(prediction: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """ROUGE-L of one case, 0 to 1, from words."""
    common = [common_length(prediction, reference) for reference in references]
    precision = max(common) / max(len(prediction), 1)
    recall = max(c / max(len(reference), 1) for c, reference in zip(common, references, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


@dataclass(frozen=True, slots=True)
class E2eRougeL:
    """Mean over the cases of the challenge's ROUGE-L, 0 to 100."""

    key: str = "e2e_rouge_l"
    better: Better = "higher"
    needs: Need = "texts"

    def measure(self, inputs: Inputs, settings: EvaluateSettings) -> Measured:
        """Return 100 times the mean; Chinese tokenisations use sacrebleu's tokens."""
        split: Callable[[str], list[str]] = words
        named = "ptb-like"
        if settings.tokenize in ("zh", "char"):
            named = settings.tokenize
            split = sacrebleu_words(settings.tokenize)
        values = [rouge_l(split(prediction), [split(reference) for reference in references])
                  for prediction, references in zip(inputs.predictions, inputs.references, strict=True)]
        return Measured(name=f"ROUGE-L (E2E challenge: maximum precision and recall, beta {BETA}, {named})",
                        signature=f"openautoglm|rouge-l|refs:max-p-max-r|beta:{BETA}|case:lc|tok:{named}|punct:no",
                        under=of_mean(values))
