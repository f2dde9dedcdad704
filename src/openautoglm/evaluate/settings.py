"""Options of evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from openautoglm.core.settings import Settings

Tokenize = Literal["13a", "intl", "zh", "char", "none"]


class EvaluateSettings(Settings):
    """What is measured and how; each choice that changes a figure stands in its name or signature."""

    metrics: Annotated[tuple[str, ...] | None, Field(min_length=1)] = None
    """Keys of ``registry.METRICS``; null measures all that the data allows, but for the slow TER."""
    lowercase: bool = False
    """Lower-case predictions and references for BLEU, chrF and exact match (TER and ROUGE always do)."""
    tokenize: Tokenize = "13a"
    """sacrebleu's tokenisation: ``13a`` for European languages, ``zh`` or ``char`` for Chinese."""
    stem: bool = False
    """Porter stemming for ROUGE (English only)."""
    bootstrap: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """Resamples of the cases for each interval; 0 gives no intervals."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Share of the resampled figures that an interval holds."""
    seed: Annotated[int, Field(ge=0)] = 12345
    """Seed of the resampling; one set of resamples serves all metrics, so they can be compared in pairs."""

    @field_validator("metrics")
    @classmethod
    def _known(cls, keys: tuple[str, ...] | None) -> tuple[str, ...] | None:
        from openautoglm.evaluate.registry import METRICS

        for key in keys or ():
            if key not in METRICS:
                raise ValueError(f"no metric {key!r}; there are {', '.join(METRICS)}")
        return keys
