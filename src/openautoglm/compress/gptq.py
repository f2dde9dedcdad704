"""GPTQ: columns are rounded one after the other, and the columns that follow make good for the error.

Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers". The levels of
all groups are fixed before the first column is rounded: the file holds scales as shares of the row's greatest, and with
the order by activation the columns of a group are rounded at different times.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openautoglm.compress.grid import Coded, Form, Grid, choose_grid, chunks, inverse
from openautoglm.compress.rtn import nearest
from openautoglm.compress.settings import GptqSettings
from openautoglm.core.log import get

_log = get(__name__)
_TRIES = 4


class Gptq:
    """What is made once from the Hessian of a matrix' inputs; any number of rows may then be rounded with it.

    Where the Hessian is of no use (not finite, all zero, not positive definite at any damping) rows are rounded to
    nearest, which is logged. Columns whose input was never anything but zero are rounded to nearest too.

    Args:
        hessian: [I, I] fp32, the mean of x x^T over the calibration's inputs x; it is left as it is.
        where: the matrix' name, for the log.
    """

    def __init__(self, hessian: Tensor, settings: GptqSettings, where: str) -> None:
        energy = hessian.diagonal()
        usable = bool(torch.isfinite(energy).all()) and bool((energy > 0).any())
        self._settings = settings
        self._importance = energy.clamp(min=0) if usable else None
        self._order = (torch.argsort(energy, descending=True, stable=True) if settings.act_order
                       else torch.arange(len(energy)))
        self._factor = _factor(hessian, self._order, settings.damping) if usable else None
        if self._factor is None:
            _log.warning("%s is rounded to nearest: what the calibration shows of its inputs is degenerate", where)

    def quantise(self, weight: Tensor, form: Form) -> Coded:
        """Quantise a matrix [O, I] fp32, or some rows of it, with the least error of its outputs."""
        grid = choose_grid(weight, form, search=self._settings.search, importance=self._importance)
        if self._factor is None:
            return nearest(weight, grid)
        codes = torch.empty(weight.shape, dtype=torch.int8 if form.symmetric else torch.uint8)
        for rows in chunks(*weight.shape):
            codes[rows] = _round_columns(weight[rows], grid.part(rows), self._factor, self._order,
                                         self._settings.block)
        return Coded(grid, codes)


def _factor(hessian: Tensor, order: Tensor, damping: float) -> Tensor | None:
    """The upper triangle U with U^T U = H^-1, columns in `order`; None where H is not positive definite.

    H reversed in rows and columns is L L^T, so H itself is R R^T with R upper, and U is the inverse of R: one Cholesky
    factorisation and one triangular inverse, in fp32.
    """
    mean = float(hessian.diagonal().mean())
    reverse = order.flip(0)
    for attempt in range(_TRIES):
        damped = hessian[reverse][:, reverse]
        diagonal = damped.diagonal()
        diagonal[diagonal <= 0] = mean
        diagonal += damping * 10**attempt * mean
        lower, info = torch.linalg.cholesky_ex(damped)
        del damped
        if int(info) == 0 and bool(torch.isfinite(lower.diagonal()).all()):
            upper = lower.flip(0, 1)
            del lower
            factor: Tensor = torch.linalg.solve_triangular(upper, torch.eye(len(order)), upper=True)
            if bool(torch.isfinite(factor).all()):
                return factor
    return None


def _round_columns(weight: Tensor, grid: Grid, factor: Tensor, order: Tensor, block: int) -> Tensor:
    """Codes [O, I] of some rows; works on the transpose, where a column lies in one piece."""
    rest = weight.t()[order]
    codes = torch.empty(rest.shape, dtype=torch.int8 if grid.form.symmetric else torch.uint8)
    scales = grid.scales.t().contiguous()
    shrunk = inverse(scales)
    zeros = None if grid.zeros is None else grid.zeros.t().contiguous()
    columns, per_group = len(order), len(order) // scales.shape[0]
    places, low, high = order.tolist(), grid.form.low, grid.form.high
    diagonal = factor.diagonal().tolist()
    for start in range(0, columns, block):
        stop = min(start + block, columns)
        errors = torch.empty(stop - start, rest.shape[1])
        for column in range(start, stop):
            group = places[column] // per_group
            value = rest[column]
            code = (value * shrunk[group]).round_()
            if zeros is not None:
                code += zeros[group]
            code.clamp_(low, high)
            codes[places[column]] = code
            if zeros is not None:
                code -= zeros[group]
            error = torch.sub(value, code.mul_(scales[group]), out=errors[column - start]).div_(diagonal[column])
            if column + 1 < stop:
                rest[column + 1:stop].addr_(factor[column, column + 1:stop], error, alpha=-1)
        if stop < columns:
            rest[stop:].addmm_(factor[start:stop, stop:].t(), errors, alpha=-1)
    return codes.t()
