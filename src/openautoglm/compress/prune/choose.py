"""Which weights go: the smallest scores of a row, of a matrix, of all matrices, or of every few neighbours.

Everywhere a score below zero means that the weight was taken out before; such weights go first and so stay out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor


def smallest(scores_N: Tensor, share: float) -> Tensor:
    """Mark the smallest `share` of a row of scores, bool [N]; among equals the first ones."""
    return _mark(scores_N[None], round(share * scores_N.numel()))[0]


def smallest_of_rows(scores_OI: Tensor, share: float) -> Tensor:
    """Mark the smallest `share` of each row."""
    return _mark(scores_OI, round(share * scores_OI.shape[1]))


def smallest_of(scores_OI: Tensor, pattern: tuple[int, int]) -> Tensor:
    """Mark the smallest few of every few neighbours in a row; the row's length is a multiple of the latter."""
    zeros, of = pattern
    return _mark(scores_OI.reshape(-1, of), zeros).view_as(scores_OI)


def chosen(scores: Mapping[str, Tensor], share: float,
           compare: Literal["row", "matrix", "global"]) -> dict[str, Tensor]:
    """Mark the weights of several matrices that go, bool [O, I] by name."""
    if compare == "row":
        return {name: smallest_of_rows(score, share) for name, score in scores.items()}
    if compare == "matrix":
        return {name: smallest(score.flatten(), share).view_as(score) for name, score in scores.items()}
    marks = smallest(torch.cat([score.flatten() for score in scores.values()]), share)
    parts = torch.split(marks, [score.numel() for score in scores.values()])
    return {name: part.view_as(score) for (name, score), part in zip(scores.items(), parts, strict=True)}


def _mark(scores: Tensor, count: int) -> Tensor:
    order = torch.argsort(scores, dim=1, stable=True)[:, :count]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, True)
