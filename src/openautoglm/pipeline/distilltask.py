"""The ``self_distill`` section."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from openautoglm.core.settings import Settings
from openautoglm.engine.sampling import Sampling


class SelfDistillTask(Settings):
    """Sequence-level self-distillation (Kim and Rush 2016, arXiv 1606.07947): what beams find, greedy learns.

    After training, the model writes candidates for every training source; the best one of each becomes its target, and
    the model learns these. Its time comes on top of `budget.minutes`.
    """

    enabled: bool = Field(default=False, description="Whether to do it at all. The data needs sources.")
    decoding: Sampling = Field(
        default_factory=lambda: Sampling(num_beams=10, n=10),
        description="How candidates are written; `choose` is not read here.")
    choose: Literal["consensus", "references"] = Field(
        default="references", description="Which candidate becomes the target, among those that cover the record best: "
        "the one most like the `references` of its source, or the one most like the other candidates.")
    sources: int = Field(
        default=20_000, gt=0, description="At most so many training sources, evenly spaced.")
    passes: float = Field(default=3.0, gt=0, description="How often each new target is seen.")
    batch: int = Field(default=32, gt=0, description="Examples of one optimiser step.")
    lr_ratio: float = Field(default=0.25, gt=0, le=1, description="Learning rate, as a share of training's.")
    ema_decay: float = Field(default=0.99, gt=0, lt=1, description="Decay of the averaged weights, which are kept.")
