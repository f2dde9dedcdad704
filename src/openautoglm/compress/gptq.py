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
_FEW_COLUMNS = 8


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
        for rows in chunks(tuple(weight.shape)):
            codes[rows] = _Rows(weight[rows], grid.part(rows), self._factor, self._order).codes()
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


class _Rows:
    """Some rows on their way to codes; works on the transpose, where a column lies in one piece.

    Columns are halved and halved again: the left half is rounded, its errors are taken to the right half in one product
    of matrices, then the right half is rounded. So nearly all work is large products, whatever the sizes are.
    """

    def __init__(self, weight: Tensor, grid: Grid, factor: Tensor, order: Tensor) -> None:
        self._factor, self._grid = factor, grid
        self._rest = weight.t()[order]
        self._errors = torch.empty_like(self._rest)
        self._codes = torch.empty(self._rest.shape, dtype=torch.int8 if grid.form.symmetric else torch.uint8)
        self._scales = grid.scales.t().contiguous()
        self._inverse = inverse(self._scales)
        self._zeros = None if grid.zeros is None else grid.zeros.t().contiguous()
        self._per_group = len(order) // len(self._scales)
        self._places, self._diagonal = order.tolist(), factor.diagonal().tolist()

    def codes(self) -> Tensor:
        """Codes [O, I]."""
        self._round(0, len(self._places))
        return self._codes.t()

    def _round(self, first: int, last: int) -> None:
        if last - first <= _FEW_COLUMNS:
            for column in range(first, last):
                self._round_column(column)
                if column + 1 < last:
                    self._rest[column + 1:last].addr_(self._factor[column, column + 1:last], self._errors[column],
                                                      alpha=-1)
            return
        middle = (first + last) // 2
        self._round(first, middle)
        self._rest[middle:last].addmm_(self._factor[first:middle, middle:last].t(), self._errors[first:middle],
                                       alpha=-1)
        self._round(middle, last)

    def _round_column(self, column: int) -> None:
        place, value = self._places[column], self._rest[column]
        group = place // self._per_group
        code = (value * self._inverse[group]).round_()
        if self._zeros is not None:
            code += self._zeros[group]
        code.clamp_(self._grid.form.low, self._grid.form.high)
        self._codes[place] = code
        if self._zeros is not None:
            code -= self._zeros[group]
        torch.sub(value, code.mul_(self._scales[group]), out=self._errors[column]).div_(self._diagonal[column])
