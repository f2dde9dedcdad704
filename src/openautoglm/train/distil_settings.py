"""The options of a distillation's loss."""

from __future__ import annotations

from pydantic import Field

from openautoglm.core.settings import Settings


class DistilLoss(Settings):
    """How the teacher enters the loss of a token.

    Attributes:
        alpha: share of the teacher's distribution in the loss; the rest is the target's cross entropy. 0: the
            distribution is not learnt.
        temperature: softens both distributions.
        top_k: so many of the teacher's greatest probabilities are kept on disk, so that the teacher runs once over the
            data; left out, it runs along, and its whole distribution is learnt.
        cache_gib: bound of that file; a larger one is refused.
        features: weight of the mean squared error between projected hidden states of the student and the teacher's
            (FitNets, Romero et al. 2015, arXiv 1412.6550); 0: hidden states are not learnt.
        layers: pairs of a student's and a teacher's layer, from 1; left out, every layer of the student with the one at
            the same share of the teacher's depth.
    """

    alpha: float = Field(default=0.7, ge=0, le=1)
    temperature: float = Field(default=2.0, gt=0)
    top_k: int | None = Field(default=None, gt=0)
    cache_gib: float = Field(default=8.0, gt=0)
    features: float = Field(default=0.0, ge=0)
    layers: tuple[tuple[int, int], ...] | None = None
