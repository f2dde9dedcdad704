"""The levels that weights are rounded to, in the form that files hold: fp16 shares of a row's greatest scale.

Scales are rounded first and codes are chosen for the rounded scales, so nothing is lost on the way to the file.
Letters in names: O outputs (rows), I inputs (columns), G groups of a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from openautoglm.compress.settings import Bits
from openautoglm.runtime.quantised import QuantisedMatrix, groups_of

CHUNK_VALUES = 1 << 23
"""How many weights are worked on at a time."""
_SEARCHED_VALUES = 1 << 20
"""The same while scales are searched: they are read for each try, and should stay in the processor's cache."""
_WIDEST_BLOCK = 128
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Form:
    """How a matrix is stored: bits, columns of a group (0: the whole row), without or with zero points."""

    bits: Bits
    group: int
    symmetric: bool = True

    @property
    def low(self) -> int:
        """The least code."""
        return 0 if not self.symmetric else -8 if self.bits == 4 else -127

    @property
    def high(self) -> int:
        """The greatest code."""
        return (1 << self.bits) - 1 if not self.symmetric else 7 if self.bits == 4 else 127

    @property
    def shrinks(self) -> tuple[float, ...]:
        """The factors of a group's plain scale that a search tries; 1 is the first."""
        if self.bits == 8:
            return (1.0, 0.97, 0.94, 0.9)
        return (1.0, 0.64, 0.7, 0.76, 0.82, 0.88, 0.94, 1.06, 1.12)

    def stored_bits(self, columns: int) -> float:
        """Bits that a weight takes in rows of `columns`: code, scale and zero point of its group, scale of its row."""
        groups = groups_of(columns, self.group)
        return self.bits + (groups * (16 if self.symmetric else 24) + 32) / columns


@dataclass(frozen=True)
class Grid:
    """The levels of a matrix [O, I].

    Attributes:
        shares: [O, G] fp16.
        rows: [O] fp32, the greatest scale of each row.
        zeros: [O, G] fp32 zero points; None where symmetric.
    """

    form: Form
    shares: Tensor
    rows: Tensor
    zeros: Tensor | None

    @property
    def scales(self) -> Tensor:
        """[O, G] fp32."""
        return self.shares.float() * self.rows[:, None]

    def part(self, rows: slice) -> Grid:
        """The levels of some rows."""
        zeros = None if self.zeros is None else self.zeros[rows]
        return Grid(self.form, self.shares[rows], self.rows[rows], zeros)

    def encode(self, weight: Tensor) -> Tensor:
        """The nearest codes of weights [O, I]; int8, or uint8 where there are zero points."""
        codes = grouped(weight, self.shares.shape[1]) * inverse(self.scales)[..., None]
        codes = codes.round_()
        if self.zeros is not None:
            codes += self.zeros[..., None]
        codes.clamp_(self.form.low, self.form.high)
        return codes.to(torch.int8 if self.zeros is None else torch.uint8).view(weight.shape)


@dataclass(frozen=True)
class Coded:
    """A quantised matrix [O, I]: its levels and its codes.

    Attributes:
        column_scales: [I]; the codes are of weights whose columns were multiplied by these. None: by nothing.
    """

    grid: Grid
    codes: Tensor
    column_scales: Tensor | None = None

    def effective(self) -> Tensor:
        """The matrix fp32 as it acts on inputs that are not scaled."""
        weight = torch.empty(self.codes.shape)
        scales, groups = self.grid.scales, self.grid.shares.shape[1]
        for rows in chunks(tuple(self.codes.shape)):
            values = grouped(self.codes[rows].float(), groups)
            if self.grid.zeros is not None:
                values = values - self.grid.zeros[rows, :, None]
            weight[rows] = (values * scales[rows, :, None]).view(-1, self.codes.shape[1])
        return weight if self.column_scales is None else weight.div_(self.column_scales)

    def rows(self, start: int, stop: int) -> Coded:
        """Some of its rows."""
        part = slice(start, stop)
        return replace(self, grid=self.grid.part(part), codes=self.codes[part])

    def divided(self, by: Tensor) -> Coded:
        """The same codes, with each row's values divided by `by` [O]; exact but for one rounding of a row's scale."""
        return replace(self, grid=replace(self.grid, rows=self.grid.rows / by))

    def matrix(self) -> QuantisedMatrix:
        """The form that files and programs take."""
        zeros = self.grid.zeros
        return QuantisedMatrix(self.grid.form.bits, np.ascontiguousarray(self.codes.numpy()), self.grid.scales.numpy(),
                               None if zeros is None else zeros.to(torch.uint8).numpy())


def grouped(weight: Tensor, groups: int) -> Tensor:
    """[O, I] as [O, G, columns of a group]."""
    return weight.reshape(weight.shape[0], groups, -1)


def inverse(scales: Tensor) -> Tensor:
    """1 / scales; 0 where a scale is too small to be divided by."""
    return torch.where(scales.abs() > _TINY, 1 / scales, 0.0)


def chunks(shape: tuple[int, ...], values: int = CHUNK_VALUES) -> Iterator[slice]:
    """Spans of the rows of a matrix that are worked on at a time, of about so many values."""
    rows, columns = shape
    size = max(1, values // max(columns, 1))
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def choose_grid(weight: Tensor, form: Form, *, search: bool = False, importance: Tensor | None = None) -> Grid:
    """Choose levels for a matrix [O, I] fp32.

    Without a search the greatest magnitude of a group decides, as in `runtime.quantised.quantise`. With one the factor
    of that scale is taken which makes the squared error of the group least.

    Args:
        importance: [I], weights of the columns' squared errors; or [G, k, k], of the products of two columns' errors
            within each group. All alike when None.
    """
    spans = chunks(tuple(weight.shape), _SEARCHED_VALUES)
    parts = [_choose(weight[rows], form, search, importance) for rows in spans]
    zeros = [part.zeros for part in parts if part.zeros is not None]
    return Grid(form, torch.cat([part.shares for part in parts]), torch.cat([part.rows for part in parts]),
                torch.cat(zeros) if zeros else None)


def _choose(weight: Tensor, form: Form, search: bool, importance: Tensor | None) -> Grid:
    groups = groups_of(weight.shape[1], form.group)
    values = grouped(weight, groups)
    least, greatest = values.amin(-1), values.amax(-1)
    if not form.symmetric:
        least, greatest = least.clamp(max=0), greatest.clamp(min=0)
        scales = (greatest - least) / form.high
    elif form.bits == 8:
        scales = torch.maximum(-least, greatest) / 127
    else:
        scales = torch.where(-least > greatest, least, greatest) / -8
    factors = torch.ones_like(scales)
    if search:
        factors = _search(values, scales, least, form, importance)
    rounded, shares, rows = _rounded(scales * factors)
    zeros = None
    if not form.symmetric:
        zeros = (-least * factors * inverse(rounded)).round_().clamp_(0, form.high)
    return Grid(form, shares, rows, zeros)


def _search(values: Tensor, scales: Tensor, least: Tensor, form: Form, importance: Tensor | None) -> Tensor:
    """For each group the factor of its scale with the least error; [O, G]."""
    best = torch.ones_like(scales)
    lowest = torch.full_like(scales, torch.inf)
    for factor in form.shrinks:
        tried = scales * factor
        codes = (values * inverse(tried)[..., None]).round_()
        if form.symmetric:
            codes.clamp_(form.low, form.high)
        else:
            zeros = (-least * factor * inverse(tried)).round_().clamp_(0, form.high)[..., None]
            codes = torch.maximum(torch.minimum(codes, form.high - zeros), -zeros)
        summed = _summed(codes.mul_(tried[..., None]).sub_(values), importance)
        better = summed < lowest
        lowest = torch.where(better, summed, lowest)
        best = torch.where(better, factor, best)
    return best


def _summed(error: Tensor, importance: Tensor | None) -> Tensor:
    """Squared errors [O, G, k] of each group, weighted; [O, G]."""
    if importance is None:
        return error.square_().sum(-1)
    if importance.dim() == 1:
        return error.square_().mul_(importance.view(error.shape[1:])).sum(-1)
    turned = error.transpose(0, 1)
    return (torch.bmm(turned, importance) * turned).sum(-1).t()


def group_blocks(hessian: Tensor, form: Form) -> Tensor:
    """What a search weights errors with: the blocks [G, k, k] of a Hessian [I, I] that belong to its groups.

    For groups wider than 128 columns it is the diagonal [I]: products of whole rows would take too long.
    """
    columns = len(hessian)
    groups = groups_of(columns, form.group)
    width = columns // groups
    if width > _WIDEST_BLOCK:
        return hessian.diagonal()
    return hessian.view(groups, width, groups, width).diagonal(dim1=0, dim2=2).permute(2, 0, 1).contiguous()


def _rounded(scales: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scales [O, G] as they will be read, their fp16 shares, and the greatest magnitude of each row."""
    rows = scales.abs().amax(-1)
    shares = torch.where(rows[:, None] > 0, scales / rows[:, None], 0.0).half()
    return shares.float() * rows[:, None], shares, rows
