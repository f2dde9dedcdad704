"""What a student learns of its teacher's distribution at the target rows, in chunks, without full logits.

Letters in names: T target tokens, H hidden width, V vocabulary, K kept tokens.

The objective of a token is ``(1 - alpha) * cross entropy + alpha * temperature^2 * KL(teacher || student)``, both
distributions softened by the temperature (Hinton et al. 2015, arXiv 1503.02531). Gradients are computed in the forward
pass, chunk by chunk, as in `objective`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class Whole:
    """The teacher's last hidden states [T, H] and its head [V, H]: its logits are made chunk by chunk."""

    hidden: Tensor
    head: Tensor


@dataclass(frozen=True)
class Top:
    """The teacher's greatest shares [T, K] of the softened distribution, and whose they are, int64 [T, K].

    What they leave over, `rest` [T, 1], is one further outcome: the student learns its sum.
    """

    shares: Tensor
    ids: Tensor
    rest: Tensor


def distil_sums(hidden_TH: Tensor, weight_VH: Tensor, labels: Tensor, teacher: Whole | Top, *, alpha: float,
                temperature: float, smoothing: float = 0.0, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return sums over T in nats, fp32: the objective (differentiable), and the plain negative log likelihood (not).

    Args:
        smoothing: label smoothing of the cross entropy.
        weights: of the tokens in the objective, fp32 [T].
    """
    kind = hidden_TH.device.type
    compute = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden_TH.dtype
    objective, nll = _Distil.apply(hidden_TH, weight_VH, labels, teacher, alpha, temperature, smoothing, weights,  # type: ignore[no-untyped-call]
                                   compute)
    return objective, nll


def top_shares(hidden_TH: Tensor, weight_VH: Tensor, k: int, temperature: float) -> Top:
    """The `k` greatest shares of softmax(logits / temperature), chunk by chunk, fp32 [T, K]."""
    chunk = max(32, _CHUNK_BYTES // (4 * len(weight_VH)))
    parts = []
    for piece in torch.split(hidden_TH, chunk):
        shares = torch.softmax((piece @ weight_VH.t()).float() / temperature, -1)
        top = shares.topk(k, -1)
        parts.append((top.values, top.indices, shares.scatter_(1, top.indices, 0.0).sum(1, keepdim=True)))
    return Top(*(torch.cat(column) for column in zip(*parts, strict=True)))


class _Distil(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, teacher: Whole | Top, alpha: float,
                temperature: float, smoothing: float, weights: Tensor | None, compute: torch.dtype
                ) -> tuple[Tensor, Tensor]:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        with torch.autocast(hidden.device.type, enabled=False):
            h, w = hidden.detach().to(compute), weight.detach().to(compute)
            if isinstance(teacher, Whole):
                teacher = Whole(teacher.hidden.to(compute), teacher.head.to(compute))
            d_hidden = torch.zeros_like(hidden) if wants_hidden else None
            d_weight = torch.zeros_like(weight) if wants_weight else None
            objective = nll = torch.zeros((), dtype=torch.float32, device=hidden.device)
            chunk = max(32, _CHUNK_BYTES // (4 * len(weight)))
            for start in range(0, len(labels), chunk):
                span = slice(start, min(start + chunk, len(labels)))
                logits = (h[span] @ w.t()).float()
                terms, gradient, picked = _hard(logits, labels[span], smoothing)
                nll = nll - picked.sum()
                kl, d_kl = _soft(logits, teacher, span, temperature)
                terms = terms.mul_(1 - alpha).add_(kl, alpha=alpha * temperature**2)
                gradient.mul_(1 - alpha).add_(d_kl, alpha=alpha * temperature)
                if weights is not None:
                    terms, gradient = terms.mul_(weights[span]), gradient.mul_(weights[span, None])
                objective = objective + terms.sum()
                gradient = gradient.to(compute)
                if d_hidden is not None:
                    d_hidden[span].copy_(gradient @ w)
                if d_weight is not None:
                    d_weight.add_(gradient.t() @ h[span])
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.mark_non_differentiable(nll)
        return objective, nll

    @staticmethod
    def backward(ctx: Any, d_objective: Tensor, _d_nll: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        return (None if d_hidden is None else d_hidden * d_objective,
                None if d_weight is None else d_weight * d_objective, *[None] * 7)


def _hard(logits: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    """Smoothed cross entropy of each token, its gradient by the logits, and the label's log-probability."""
    vocabulary = logits.shape[1]
    logp = torch.log_softmax(logits, -1)
    picked = logp.gather(1, labels[:, None])
    terms = -(1 - smoothing) * picked[:, 0]
    if smoothing:
        terms = terms - logp.sum(1) * (smoothing / vocabulary)
    gradient = logp.exp_()
    if smoothing:
        gradient.sub_(smoothing / vocabulary)
    gradient.scatter_add_(1, labels[:, None], torch.full_like(picked, smoothing - 1))
    return terms, gradient, picked


def _soft(logits: Tensor, teacher: Whole | Top, span: slice, temperature: float) -> tuple[Tensor, Tensor]:
    """KL of each token, and its gradient by the softened logits."""
    logp = torch.log_softmax(logits / temperature, -1)
    if isinstance(teacher, Whole):
        theirs = _fitted((teacher.hidden[span] @ teacher.head.t()).float() / temperature, logits.shape[1])
        logq = torch.log_softmax(theirs, -1)
        q = logq.exp()
        kl = torch.where(q > 0, q * (logq - logp), 0.0).sum(1)
        return kl, logp.exp_().sub_(q)
    q, ids, rest = teacher.shares[span].float(), teacher.ids[span], teacher.rest[span]
    q = q * ((1 - rest) / q.sum(1, keepdim=True))  # kept in half precision, they add up to nearly that
    logp_k = logp.gather(1, ids)
    tail = logp.exp_().scatter_(1, ids, 0.0)
    left = tail.sum(1, keepdim=True).clamp_min(1e-30)
    kl = torch.where(q > 0, q * (q.clamp_min(1e-30).log() - logp_k), 0.0).sum(1)
    kl += torch.where(rest > 0, rest * (rest.clamp_min(1e-30).log() - left.log()), 0.0)[:, 0]
    gradient = tail.mul_(1 - rest / left)
    return kl, gradient.scatter_(1, ids, logp_k.exp() - q)


def _fitted(logits: Tensor, vocabulary: int) -> Tensor:
    """Logits with as many columns as the student's: rows that no tokenizer uses are cut, or impossible."""
    if logits.shape[1] >= vocabulary:
        return logits[:, :vocabulary]
    return F.pad(logits, (0, vocabulary - logits.shape[1]), value=float("-inf"))
