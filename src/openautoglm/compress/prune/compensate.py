"""What stays of a pruned matrix takes over what its lost inputs gave, by least squares."""

from __future__ import annotations

import torch
from torch import Tensor


def compensated(weight_OI: Tensor, products_II: Tensor, stay: Tensor, damping: float) -> Tensor:
    """Return the columns that stay, with the values nearest to the whole matrix's outputs, [O, stay].

    The least-squares solution ``W H[:, s] (H[s, s] + d I)^-1``, pulled towards the old values by the damping.

    Args:
        products_II: the sum of ``x x^T`` over the inputs.
        stay: numbers of the columns that stay.
        damping: share of the mean diagonal added to the diagonal.
    """
    hessian = products_II.double()
    weight = weight_OI.detach().double()
    inner = hessian[stay][:, stay]
    ridge = damping * float(inner.diagonal().mean().clamp(min=1e-12))
    gone = torch.ones(len(hessian), dtype=torch.bool, device=hessian.device)
    gone[stay] = False
    lost = weight[:, gone] @ hessian[gone][:, stay]
    inner = inner + ridge * torch.eye(len(stay), dtype=inner.dtype, device=inner.device)
    more: Tensor = torch.linalg.solve(inner, lost.t()).t()
    return (weight[:, stay] + more).to(weight_OI.dtype)
