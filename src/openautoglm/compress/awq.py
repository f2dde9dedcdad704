"""AWQ: input columns that matter are scaled up before rounding, and whatever makes these inputs is scaled down.

Lin et al. 2023, "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration". The factor of a
column is a power of its input's mean magnitude; the exponent is the one with the least error of the matrix' outputs.
Exponent 0 is plain rounding, so on the rows that are tried the result is never worse than that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from openautoglm.compress.gptq import Gptq
from openautoglm.compress.grid import Coded, Form, group_blocks
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
    trial = _Trial(weight, seen.hessian, form, settings)
    for scales in [torch.ones(weight.shape[1])] if shared is None else _scales(seen.magnitude, settings, shared):
        trial.attempt(scales)
    scaled, hessian = weight * trial.scales, seen.hessian / torch.outer(trial.scales, trial.scales)
    if settings.then == "gptq":
        coded = Gptq(hessian, settings.gptq(), where).quantise(scaled, form)
    else:
        coded = round_to_nearest(scaled, form, search=trial.search, importance=group_blocks(hessian, form))
    return coded if shared is None else replace(coded, column_scales=trial.scales)


class _Trial:
    """Looks for the factors with the least error of the outputs, on some rows; plain rounding is the first try.

    Attributes:
        scales: [I], the best factors so far.
        search: whether scales of groups were searched with them.
    """

    def __init__(self, weight: Tensor, hessian: Tensor, form: Form, settings: AwqSettings) -> None:
        self._sample = weight[some_rows(weight, settings.search_rows)]
        self._hessian, self._form, self._searched = hessian, form, settings.search
        self._blocks = group_blocks(hessian, form)
        self.scales, self.search, self._lowest = torch.ones(weight.shape[1]), False, torch.inf
        self._take(self.scales, False)

    def attempt(self, scales: Tensor) -> None:
        """Try some factors [I]."""
        self._take(scales, self._searched)

    def _take(self, scales: Tensor, search: bool) -> None:
        importance = None
        if search:
            within = scales.view(len(self._blocks), -1) if self._blocks.dim() == 3 else None
            importance = (self._blocks / scales.square() if within is None
                          else self._blocks / (within[:, :, None] * within[:, None, :]))
        coded = round_to_nearest(self._sample * scales, self._form, search=search, importance=importance)
        error = output_error(self._sample, coded.effective().div_(scales), self._hessian)
        if error < self._lowest:
            self.scales, self.search, self._lowest = scales, search, error


def _scales(magnitude: Tensor, settings: AwqSettings, shared: tuple[int, int]) -> Iterator[Tensor]:
    """The factors [I] of each exponent, around 1; none but 1 where the inputs have no use."""
    heads, width = shared
    pooled = magnitude.view(-1, heads, width).mean(1, keepdim=True).expand(-1, heads, width).reshape(-1)
    if not bool(torch.isfinite(pooled).all()) or not bool((pooled > 0).any()):
        yield torch.ones(len(pooled))
        return
    pooled = pooled.clamp(min=float(pooled[pooled > 0].min()))
    for step in range(settings.alphas):
        scales = pooled.pow(step / (settings.alphas - 1))
        yield (scales / (scales.max() * scales.min()).sqrt()).clamp(1e-4, 1e4)
