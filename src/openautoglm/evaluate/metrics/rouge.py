"""ROUGE-1, -2, -L, -Lsum (Lin, 2004) by Google's rouge-score: F1, as a mean over cases.

Two variants, which give very different figures: against the first reference, and the maximum over all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Literal

from openautoglm.core.extras import require
from openautoglm.evaluate.base import Better, Inputs, Measured, Need, of_mean, sacrebleu_words
from openautoglm.evaluate.settings import EvaluateSettings

Kind = Literal["rouge1", "rouge2", "rougeL", "rougeLsum"]
TITLES: dict[Kind, str] = {
    "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum"}


class _Words:
    """rouge-score's tokenizer interface over a function, remembering texts (each is asked for many times)."""

    def __init__(self, split: Callable[[str], list[str]]) -> None:
        self.tokenize = lru_cache(maxsize=1 << 16)(split)


def tokenizer(settings: EvaluateSettings) -> tuple[_Words, str]:
    """Return the tokenizer and its name: rouge-score's own (a-z and 0-9 only), or sacrebleu's for Chinese."""
    if settings.tokenize in ("zh", "char"):
        split = sacrebleu_words(settings.tokenize)
        return _Words(lambda text: split(text.lower())), settings.tokenize
    DefaultTokenizer = require("rouge_score.tokenizers", "train").DefaultTokenizer
    name = "rouge-score, stemmed" if settings.stem else "rouge-score"
    return _Words(DefaultTokenizer(settings.stem).tokenize), name


@dataclass(frozen=True, slots=True)
class Rouge:
    """One kind of ROUGE against the first reference (`first`) or as the maximum over all references."""

    kind: Kind
    first: bool
    better: Better = "higher"
    needs: Need = "texts"

    @property
    def key(self) -> str:
        """``rouge_l``, or ``rouge_l_first`` for the variant against the first reference."""
        key = TITLES[self.kind].lower().replace("-", "_")
        return f"{key}_first" if self.first else key

    def measure(self, inputs: Inputs, settings: EvaluateSettings) -> Measured:
        """Return 100 times the mean F1."""
        RougeScorer = require("rouge_score.rouge_scorer", "train").RougeScorer
        words, named = tokenizer(settings)
        scorer = RougeScorer([self.kind], tokenizer=words)
        values = []
        for prediction, references in zip(inputs.predictions, inputs.references, strict=True):
            targets = references[:1] if self.first else references
            values.append(max(scorer.score(target, prediction)[self.kind].fmeasure for target in targets))
        over = "first reference" if self.first else (
            "maximum over references" if inputs.most_references > 1 else "one reference")
        which = "first" if self.first else "max"
        signature = f"rouge-score|refs:{which}|measure:f1|tok:{named}|split:newline"
        return Measured(name=f"{TITLES[self.kind]} F1 ({named}, {over})",
                        signature=f"{signature}|version:{version('rouge-score')}", under=of_mean(values))
