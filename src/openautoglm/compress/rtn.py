"""Round to nearest: each weight becomes the nearest level of its group. Needs no data."""

from __future__ import annotations

import torch
from torch import Tensor

from openautoglm.compress.grid import Coded, Form, Grid, choose_grid, chunks


def round_to_nearest(weight: Tensor, form: Form, *, search: bool = False, importance: Tensor | None = None) -> Coded:
    """Quantise a matrix [O, I] fp32.

    Args:
        search: look for the best scale of each group in place of the one that its greatest magnitude gives.
        importance: what errors are weighted with in that search, see `choose_grid`.
    """
    return nearest(weight, choose_grid(weight, form, search=search, importance=importance))


def nearest(weight: Tensor, grid: Grid) -> Coded:
    """Round a matrix to given levels."""
    codes = torch.empty(weight.shape, dtype=torch.int8 if grid.form.symmetric else torch.uint8)
    for rows in chunks(tuple(weight.shape), 1 << 20):
        codes[rows] = grid.part(rows).encode(weight[rows])
    return Coded(grid, codes)
