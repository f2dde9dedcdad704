"""AWQ: input columns that matter are scaled up before rounding, and whatever makes these inputs is scaled down.

Lin et al. 2023, "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration". The factor of a
column is a power of its input's mean magnitude; the exponent is the one with the least error of the matrix' outputs.
Exponent 0 is plain rounding, so on the rows that are tried the result is never worse than that.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from openautoglm.compress.gptq import Gptq
from openautoglm.compress.grid import Coded, Form
from openautoglm.compress.rtn import round_to_nearest
from openautoglm.compress.settings import AwqSettings
from openautoglm.compress.statistics import Statistics, output_error, some_rows


def awq(weight: Tensor, seen: Statistics, form: Form, settings: AwqSettings, where: str, *,
        shared: tuple[int, int] | None) -> Coded:
    """Quantise a matrix [O, I] fp32; the result says by what its columns were scaled.

    Args:
        seen: what the calibration shows of its inputs.
        where: the matrix' name, for the log.
        shared: which columns must have one factor: (a, b) means that of the columns in [K, a, b], K any, those that
            differ in the middle index only share it (heads that read one value head). None: the columns cannot be
            scaled at all.
    """
    hessian = seen.hessian
    scales = torch.ones(weight.shape[1]) if shared is None else _scales(weight, seen, form, settings, shared)
    scaled, seen_scaled = weight * scales, hessian / torch.outer(scales, scales)
    if settings.then == "gptq":
        coded = Gptq(seen_scaled, settings.gptq(), where).quantise(scaled, form)
    else:
        coded = round_to_nearest(scaled, form)
        if settings.search:
            tried = round_to_nearest(scaled, form, search=True, importance=seen_scaled.diagonal())
            rows = some_rows(weight, settings.search_rows)
            if _error(tried, scaled, seen_scaled, rows) < _error(coded, scaled, seen_scaled, rows):
                coded = tried
    return coded if shared is None else replace(coded, column_scales=scales)


def _error(coded: Coded, weight: Tensor, hessian: Tensor, rows: Tensor) -> float:
    return output_error(weight[rows], coded.effective()[rows], hessian)


def _scales(weight: Tensor, seen: Statistics, form: Form, settings: AwqSettings, shared: tuple[int, int]) -> Tensor:
    """The factors [I] with the least error of the outputs."""
    heads, width = shared
    magnitude = seen.magnitude.view(-1, heads, width).mean(1, keepdim=True).expand(-1, heads, width).reshape(-1)
    if not bool(torch.isfinite(magnitude).all()) or not bool((magnitude > 0).any()):
        return torch.ones(len(magnitude))
    magnitude = magnitude.clamp(min=float(magnitude[magnitude > 0].min()))
    sample = weight[some_rows(weight, settings.search_rows)]
    best, lowest = torch.ones(len(magnitude)), torch.inf
    for step in range(settings.alphas):
        scales = magnitude.pow(step / (settings.alphas - 1))
        scales = (scales / (scales.max() * scales.min()).sqrt()).clamp(1e-4, 1e4)
        effective = round_to_nearest(sample * scales, form).effective().div_(scales)
        error = output_error(sample, effective, seen.hessian)
        if error < lowest:
            best, lowest = scales, error
    return best
