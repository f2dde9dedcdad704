"""Weights as arrays that numpy has no type for: matrices in int8 and int4, and bf16.

value = (stored - zero point) x scale. Symmetric: no zero point, stored -127..127 or -8..7; asymmetric: stored
0..255 or 0..15, and 0.0 is always exact. Letters in names: O outputs (rows), I inputs (columns), G groups of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Bf16:
    """bf16 values: numpy has no such type, so their 16 bits as uint16."""

    bits: NDArray[np.uint16]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the values."""
        return self.bits.shape

    def __getitem__(self, rows: slice) -> Bf16:
        return Bf16(self.bits[rows])

    def float32(self) -> Float32:
        """The same values in fp32; exact."""
        return (self.bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def to_bf16(values: Float32) -> Bf16:
    """Round fp32 values to the nearest bf16, ties to even; what is not a number stays none."""
    raw = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (raw + np.uint32(0x7FFF) + ((raw >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return Bf16(np.where(np.isnan(values), np.uint32(0x7FC0), rounded).astype(np.uint16))


@dataclass(frozen=True, eq=False)
class QuantisedMatrix:
    """A quantised matrix.

    Attributes:
        bits: 8 or 4.
        values: [O, I] one value a byte, for 4 bits too: int8 where symmetric, else uint8.
        scales: [O, G] fp32; of symmetric 4-bit groups they may be negative.
        zeros: [O, G] zero points, uint8; None where symmetric.
    """

    bits: Literal[8, 4]
    values: NDArray[Any]
    scales: Float32
    zeros: NDArray[np.uint8] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """[O, I]."""
        return self.values.shape

    @property
    def group(self) -> int:
        """Input columns of a group."""
        return int(self.values.shape[1] // self.scales.shape[1])

    def dequantise(self) -> Float32:
        """The matrix [O, I] in fp32."""
        grouped = self.values.reshape(*self.scales.shape, self.group).astype(np.float32)
        if self.zeros is not None:
            grouped -= self.zeros[..., None]
        grouped *= self.scales[..., None]
        return grouped.reshape(self.shape)


def rounded_scales(scales: Float32) -> Float32:
    """Scales [O, G] as packed weights and files hold them: an fp16 share of the largest magnitude of their row.

    Round scales so before codes are chosen: codes are then the nearest to what will be computed with.
    """
    largest = np.abs(scales).max(-1, keepdims=True)
    shares = np.divide(scales, largest, out=np.zeros_like(scales), where=largest > 0)
    rounded: Float32 = shares.astype(np.float16).astype(np.float32) * largest
    return rounded
