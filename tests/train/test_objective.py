"""The chunked cross entropy equals torch's, with and without label smoothing, and so do its gradients."""

from __future__ import annotations

import pytest
import torch

from openautoglm.train import objective
from openautoglm.train.objective import cross_entropy_sums


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk_bytes", [1, 8 << 20])
def test_equals_torch(smoothing, chunk_bytes, monkeypatch):
    monkeypatch.setattr(objective, "_CHUNK_BYTES", chunk_bytes)
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 16, generator=generator, requires_grad=True) for n in (70, 31))
    labels = torch.randint(0, 31, (70,), generator=generator)
    expected = torch.nn.functional.cross_entropy(hidden @ weight.t(), labels, reduction="sum",
                                                 label_smoothing=smoothing)
    wanted = torch.autograd.grad(3 * expected, (hidden, weight))
    got, nll = cross_entropy_sums(hidden, weight, labels, smoothing)
    torch.testing.assert_close(got, expected)
    plain = torch.nn.functional.cross_entropy(hidden @ weight.t(), labels, reduction="sum")
    torch.testing.assert_close(nll, plain)
    for mine, theirs in zip(torch.autograd.grad(3 * got, (hidden, weight)), wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_bf16_accumulates_the_weight_gradient_in_fp32(monkeypatch):
    monkeypatch.setattr(objective, "_CHUNK_BYTES", 1)
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 16, generator=generator, requires_grad=True) for n in (320, 31))
    labels = torch.randint(0, 31, (320,), generator=generator)
    exact = torch.autograd.grad(cross_entropy_sums(hidden, weight, labels)[0], weight)[0]
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = cross_entropy_sums(hidden, weight, labels)
    assert total.dtype == torch.float32
    (got,) = torch.autograd.grad(total, weight)
    assert (got - exact).norm() < 0.01 * exact.norm()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_scale_each_token_in_the_objective_but_not_in_the_likelihood(smoothing, monkeypatch):
    monkeypatch.setattr(objective, "_CHUNK_BYTES", 1)
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 16, generator=generator, requires_grad=True) for n in (70, 31))
    labels, weights = torch.randint(0, 31, (70,), generator=generator), torch.rand(70, generator=generator)
    terms = torch.nn.functional.cross_entropy(hidden @ weight.t(), labels, reduction="none", label_smoothing=smoothing)
    wanted = torch.autograd.grad(terms @ weights, (hidden, weight))
    got, nll = cross_entropy_sums(hidden, weight, labels, smoothing, weights)
    torch.testing.assert_close(got, terms @ weights)
    torch.testing.assert_close(nll, cross_entropy_sums(hidden, weight, labels)[1])
    for mine, theirs in zip(torch.autograd.grad(got, (hidden, weight)), wanted, strict=True):
        torch.testing.assert_close(mine, theirs)
