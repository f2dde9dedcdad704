"""Cross entropy at the target rows only, in chunks, without ever holding the logits of a batch.

Letters in names: T target tokens, H hidden width, V vocabulary.

The gradients are computed in the forward pass while a chunk's logits are in the cache (as in Liger Kernel,
Hsu et al. 2024), so neither logits nor their gradient outlive their chunk. Label smoothing as in Szegedy et
al. 2016: the target distribution is ``1 - smoothing`` on the label plus ``smoothing`` spread evenly over
the vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CHUNK_BYTES = 8 << 20


def cross_entropy_sums(hidden_TH: Tensor, weight_VH: Tensor, labels: Tensor,
                       smoothing: float = 0.0, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return sums over T: the objective (differentiable), the plain negative log likelihood (not).

    Both are fp32 scalars in nats. Matrix products run in autocast's type where autocast is on, all else in
    fp32. `weights` (fp32, [T]) weigh the tokens in the objective, not in the likelihood.
    """
    kind = hidden_TH.device.type
    compute = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden_TH.dtype
    objective, nll = _CrossEntropy.apply(hidden_TH, weight_VH, labels, smoothing, weights, compute)  # type: ignore[no-untyped-call]
    return objective, nll


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, smoothing: float,
                weights: Tensor | None, compute: torch.dtype) -> tuple[Tensor, Tensor]:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        with torch.autocast(hidden.device.type, enabled=False):
            rows, vocabulary = len(labels), len(weight)
            h, w = hidden.detach().to(compute), weight.detach().to(compute)
            d_hidden = torch.empty_like(hidden) if wants_hidden else None
            d_weight = torch.zeros_like(weight) if wants_weight else None
            objective = nll = torch.zeros((), dtype=torch.float32, device=hidden.device)
            chunk = max(32, _CHUNK_BYTES // (4 * vocabulary))
            for start in range(0, rows, chunk):
                span = slice(start, min(start + chunk, rows))
                logp = torch.log_softmax(h[span] @ w.t(), -1, dtype=torch.float32)
                picked = logp.gather(1, labels[span, None])
                nll = nll - picked.sum()
                terms = (1 - smoothing) * picked[:, 0]
                if smoothing:
                    terms = terms + logp.sum(1) * (smoothing / vocabulary)
                objective = objective - (terms.sum() if weights is None else terms @ weights[span])
                if d_hidden is None and d_weight is None:
                    continue
                gradient = logp.exp_()
                if smoothing:
                    gradient.sub_(smoothing / vocabulary)
                gradient.scatter_add_(1, labels[span, None], torch.full_like(picked, smoothing - 1))
                if weights is not None:
                    gradient.mul_(weights[span, None])
                gradient = gradient.to(compute)
                if d_hidden is not None:
                    torch.mm(gradient, w, out=d_hidden[span]) if d_hidden.dtype == compute else \
                        d_hidden[span].copy_(gradient @ w)
                if d_weight is not None:
                    d_weight.addmm_(gradient.t(), h[span]) if d_weight.dtype == compute else \
                        d_weight.add_(gradient.t() @ h[span])
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.mark_non_differentiable(nll)
        return objective, nll

    @staticmethod
    def backward(ctx: Any, d_objective: Tensor, _d_nll: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        return (None if d_hidden is None else d_hidden * d_objective,
                None if d_weight is None else d_weight * d_objective, None, None, None, None)
