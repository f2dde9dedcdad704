"""GPTQ and AWQ as methods on one matrix: what they promise by construction, and where they give way."""

from __future__ import annotations

import logging

import pytest
import torch

from openautoglm.compress.awq import awq
from openautoglm.compress.gptq import Gptq
from openautoglm.compress.grid import Form
from openautoglm.compress.rtn import round_to_nearest
from openautoglm.compress.settings import AwqSettings, GptqSettings
from openautoglm.compress.statistics import Statistics, output_error

FORM = Form(4, 32)


def correlated(tokens: int = 600, columns: int = 96, seed: int = 0) -> tuple[torch.Tensor, Statistics]:
    """A matrix, and inputs that depend on each other and differ much in strength."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns // 3, columns, generator=generator)
    inputs = torch.randn(tokens, columns // 3, generator=generator) @ mixing
    inputs += 0.1 * torch.randn(tokens, columns, generator=generator)
    inputs *= torch.randn(columns, generator=generator).exp()
    seen = Statistics(columns)
    seen.add(inputs)
    return torch.randn(48, columns, generator=generator), seen.close()


def error(weight: torch.Tensor, effective: torch.Tensor, seen: Statistics) -> float:
    return output_error(weight, effective, seen.hessian)


@pytest.mark.parametrize("act_order", [True, False], ids=["by-activation", "in-order"])
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
def test_gptq_beats_rounding_on_correlated_inputs(act_order: bool, symmetric: bool) -> None:
    weight, seen = correlated()
    form = Form(4, 32, symmetric)
    plain = error(weight, round_to_nearest(weight, form, search=True).effective(), seen)
    coded = Gptq(seen.hessian, GptqSettings(act_order=act_order), "it").quantise(weight, form)
    assert error(weight, coded.effective(), seen) < 0.5 * plain


def test_gptq_is_column_by_column_what_the_paper_says() -> None:
    """The halving computes what the plain loop over columns does: round one, spread its error over those behind."""
    weight, seen = correlated(columns=64)
    settings = GptqSettings(act_order=False, search=False)
    hessian = seen.hessian.double() + 0.01 * seen.hessian.diagonal().double().mean() * torch.eye(64)
    upper = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    grid = round_to_nearest(weight, FORM).grid
    rest, expected = weight.double().clone(), torch.empty(48, 64, dtype=torch.float64)
    for column in range(64):
        scale = grid.scales[:, column // 32].double()
        expected[:, column] = (rest[:, column] / scale).round().clamp(-8, 7) * scale
        spread = (rest[:, column] - expected[:, column]) / upper[column, column]
        rest[:, column:] -= spread[:, None] * upper[column, column:]
    ours = Gptq(seen.hessian, settings, "it").quantise(weight, FORM).effective().double()
    assert float(((ours - expected).abs() > 1e-6).float().mean()) < 0.01  # a tie may fall the other way in fp32
    assert error(weight, ours.float(), seen) == pytest.approx(error(weight, expected.float(), seen), rel=0.02)


def test_gptq_without_correlation_is_rounding() -> None:
    weight, _ = correlated()
    coded = Gptq(torch.diag(torch.rand(96) + 0.1), GptqSettings(search=False), "it").quantise(weight, FORM)
    assert torch.equal(coded.codes, round_to_nearest(weight, FORM).codes)


def test_columns_that_were_never_seen_are_rounded_to_nearest() -> None:
    weight, seen = correlated()
    hessian = seen.hessian.clone()
    dead = torch.tensor([0, 33, 95])
    hessian[dead], hessian[:, dead] = 0, 0
    coded = Gptq(hessian, GptqSettings(search=False), "it").quantise(weight, FORM)
    assert torch.equal(coded.codes[:, dead], round_to_nearest(weight, FORM).codes[:, dead])
    assert not torch.equal(coded.codes, round_to_nearest(weight, FORM).codes)


@pytest.mark.parametrize("hessian", [
    pytest.param(torch.zeros(96, 96), id="nothing-seen"),
    pytest.param(torch.full((96, 96), torch.nan), id="not-finite"),
    pytest.param(torch.eye(96) - 2 * torch.ones(96, 96) + 3 * torch.eye(96), id="not-positive"),
])
def test_a_degenerate_hessian_falls_back_and_says_so(hessian: torch.Tensor, caplog: pytest.LogCaptureFixture) -> None:
    weight, _ = correlated()
    logger = logging.getLogger("openautoglm")
    logger.addHandler(caplog.handler)
    try:
        coded = Gptq(hessian, GptqSettings(search=False), "layers.7.mlp").quantise(weight, FORM)
    finally:
        logger.removeHandler(caplog.handler)
    assert torch.equal(coded.codes, round_to_nearest(weight, FORM).codes)
    assert "layers.7.mlp is rounded to nearest" in caplog.text


@pytest.mark.parametrize("search", [True, False], ids=["search", "plain"])
@pytest.mark.parametrize("shared", [(1, 96), (3, 8)], ids=["each-column", "three-heads-share"])
def test_awq_is_never_worse_than_rounding(shared: tuple[int, int], search: bool) -> None:
    for seed in range(4):
        weight, seen = correlated(seed=seed)
        plain = error(weight, round_to_nearest(weight, FORM).effective(), seen)
        coded = awq(weight, seen, FORM, AwqSettings(search=search), "it", shared=shared)
        assert error(weight, coded.effective(), seen) <= plain * (1 + 1e-5)
        scales = coded.column_scales
        assert scales is not None
        heads, width = shared
        assert torch.equal(scales.view(-1, heads, width), scales.view(-1, heads, width)[:, :1].expand(-1, heads, -1))


def test_awq_beats_rounding_where_few_columns_are_strong() -> None:
    weight, seen = correlated()
    plain = error(weight, round_to_nearest(weight, FORM).effective(), seen)
    coded = awq(weight, seen, FORM, AwqSettings(), "it", shared=(1, 96))
    assert error(weight, coded.effective(), seen) < 0.8 * plain


def test_awq_then_gptq_beats_awq_alone() -> None:
    weight, seen = correlated()
    alone, both = (awq(weight, seen, FORM, AwqSettings(then=then), "it", shared=(1, 96)) for then in ("rtn", "gptq"))
    assert error(weight, both.effective(), seen) < error(weight, alone.effective(), seen)


def test_awq_without_inputs_scales_nothing() -> None:
    weight, _ = correlated()
    seen = Statistics(96)
    seen.add(torch.zeros(4, 96))
    coded = awq(weight, seen.close(), FORM, AwqSettings(search=False), "it", shared=(1, 96))
    assert torch.equal(coded.effective(), round_to_nearest(weight, FORM).effective())
