"""SparseGPT: weights are removed column by column, and the rest makes up for it.

Frantar and Alistarh 2023, arXiv 2301.00774.

Letters in names: O outputs and I inputs of a matrix, C columns of a block. All in fp32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openautoglm.compress.prune.choose import smallest, smallest_of
from openautoglm.core.errors import CompressError


def sparsegpt(weight_OI: Tensor, products_II: Tensor, share: float, pattern: tuple[int, int] | None, *,
              stays_OI: Tensor | None = None, block: int = 128, damping: float = 0.01) -> tuple[Tensor, Tensor]:
    """Prune one matrix; return its new weights, and which of them stay (bool).

    Args:
        products_II: the sum of ``x x^T`` over its inputs.
        share: of the weights to remove, in each block of columns; not read where there is a pattern.
        pattern: how many of how many neighbours in a row are zero.
        stays_OI: an earlier mask; what it takes out stays out.
        block: columns whose weights are chosen together.
        damping: share of the mean diagonal added to the diagonal.

    Raises:
        CompressError: the inputs give no Hessian that can be inverted.
    """
    weight = weight_OI.detach().float().clone()
    stays = torch.ones_like(weight, dtype=torch.bool) if stays_OI is None else stays_OI.clone()
    weight.masked_fill_(~stays, 0)
    upper = _inverse_factor(products_II, damping)
    if pattern is not None:
        block = -(-block // pattern[1]) * pattern[1]
    for start in range(0, weight.shape[1], block):
        span = slice(start, min(start + block, weight.shape[1]))
        factor, part, kept = upper[span, span], weight[:, span], stays[:, span]
        errors = torch.zeros_like(part)
        if pattern is None:
            score = (part / factor.diagonal()).square().masked_fill(~kept, -1)
            kept &= ~smallest(score.flatten(), share).view_as(score)
        for column in range(part.shape[1]):
            if pattern is not None and column % pattern[1] == 0:
                near = slice(column, column + pattern[1])
                score = (part[:, near] / factor.diagonal()[near]).square().masked_fill(~kept[:, near], -1)
                kept[:, near] &= ~smallest_of(score, pattern)
            values = part[:, column].clone()
            part[:, column].masked_fill_(~kept[:, column], 0)
            errors[:, column] = (values - part[:, column]) / factor[column, column]
            part[:, column + 1 :] -= errors[:, column, None] * factor[column, column + 1 :]
        weight[:, span.stop :] -= errors @ upper[span, span.stop :]
    return weight.masked_fill_(~stays, 0), stays


def _inverse_factor(products_II: Tensor, damping: float) -> Tensor:
    """The upper Cholesky factor of the damped Hessian's inverse, [I, I]."""
    hessian = products_II.double()
    mean = float(hessian.diagonal().mean())
    diagonal = hessian.diagonal() + damping * (mean if mean > 0 else 1.0)
    hessian = hessian - torch.diag(hessian.diagonal()) + torch.diag(diagonal)
    lower, failed = torch.linalg.cholesky_ex(hessian)
    if not bool(torch.isfinite(lower).all()) or int(failed):
        raise CompressError("the inputs of a matrix give no Hessian that can be inverted", where="damping",
                            remedy="raise damping, or give more rows")
    inverse = torch.cholesky_inverse(lower)
    upper: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return upper.float()
