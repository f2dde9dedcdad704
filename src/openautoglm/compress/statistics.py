"""What calibration shows of a matrix' inputs, and the error of its outputs that follows from it."""

from __future__ import annotations

import torch
from torch import Tensor


class Statistics:
    """Sums over the inputs x [I] of one matrix.

    Attributes:
        count: how many inputs were added.
        hessian: [I, I] fp32, the mean of x x^T.
        magnitude: [I] fp32, the mean of |x|.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self._products = torch.zeros(width, width)
        self._magnitudes = torch.zeros(width)
        self._mean = False

    def add(self, inputs: Tensor) -> None:
        """Add inputs [T, I] fp32."""
        assert not self._mean
        self._products.addmm_(inputs.t(), inputs)
        self._magnitudes += inputs.abs().sum(0)
        self.count += len(inputs)

    def close(self) -> Statistics:
        """Turn the sums into means, in place: the Hessian of a wide matrix is large."""
        if not self._mean:
            self._products /= max(self.count, 1)
            self._magnitudes /= max(self.count, 1)
            self._mean = True
        return self

    @property
    def hessian(self) -> Tensor:
        """The mean of x x^T."""
        assert self._mean
        return self._products

    @property
    def magnitude(self) -> Tensor:
        """The mean of |x|."""
        assert self._mean
        return self._magnitudes


def output_error(weight: Tensor, effective: Tensor, hessian: Tensor) -> float:
    """Mean squared error of the outputs of `effective` [O, I], as a share of the outputs' own mean square."""
    change = effective - weight
    error = float(((change @ hessian) * change).sum(dtype=torch.float64))
    energy = float(((weight @ hessian) * weight).sum(dtype=torch.float64))
    return max(error, 0.0) / energy if energy > 0 else 0.0


def weight_error(weight: Tensor, effective: Tensor) -> float:
    """Squared error of the weights, as a share of their own square."""
    energy = float(weight.square().sum(dtype=torch.float64))
    return float((effective - weight).square().sum(dtype=torch.float64)) / energy if energy > 0 else 0.0


def some_rows(weight: Tensor, most: int) -> Tensor:
    """Numbers of at most `most` rows, evenly spaced."""
    rows = len(weight)
    return torch.arange(rows) if rows <= most else torch.linspace(0, rows - 1, most).round().long()
