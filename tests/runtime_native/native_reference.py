"""What the native kernels compute, said again in numpy, and matrices packed as docs/formats.md says."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Array = NDArray[Any]
PANEL = 32
NUMBERS = {"fp32": 1, "bf16": 2, "int8": 3, "int4": 4}


class Weight(NamedTuple):
    """A matrix: the bytes of its packed form, and its values [outputs, inputs] and bias [outputs] in fp64."""

    packed: NDArray[np.uint8]
    values: NDArray[np.float64]
    bias: NDArray[np.float64]


def bf16(values: Float32) -> NDArray[np.uint16]:
    """fp32 as the nearest bf16, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def widen(halves: NDArray[np.uint16]) -> Float32:
    """bf16 as fp32."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def make_weight(rng: np.random.Generator, format: str, outputs: int, inputs: int, group: int = 0,
                zeros: bool = False) -> Weight:
    """A random matrix in a format; `group` 0 is the whole row, for int8 and int4 only."""
    bias = rng.normal(size=outputs).astype(np.float32)
    if format in ("fp32", "bf16"):
        values = (rng.normal(size=(outputs, inputs)) / np.sqrt(inputs)).astype(np.float32)
        if format == "bf16":
            values = widen(bf16(values))
        body = _float_lines(format, values)
        packed = _pack(format, values, body, np.ones(outputs, np.float32), bias, 0, False)
        return Weight(packed, values.astype(np.float64), bias.astype(np.float64))
    top = 256 if format == "int8" else 16
    size = group or inputs
    codes = rng.integers(0 if zeros else 1, top, (outputs, inputs // size, size))
    points = rng.integers(0, top, codes.shape[:2]) if zeros else np.full(codes.shape[:2], top // 2)
    shares = rng.uniform(-1, 1, codes.shape[:2]).astype(np.float16)
    scale = (rng.uniform(0.5, 1, outputs) / (top * np.sqrt(inputs))).astype(np.float32)
    values = ((codes - points[..., None]) * shares[..., None].astype(np.float64)).reshape(outputs, inputs)
    body = _code_groups(format, codes, shares, points if zeros else None)
    packed = _pack(format, values, body, scale, bias, size, zeros)
    return Weight(packed, values * scale[:, None].astype(np.float64), bias.astype(np.float64))


def _panels(values: Array) -> Array:
    """[outputs, ...] as [panels, 32, ...], filled up with zeros."""
    missing = -len(values) % PANEL
    return np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1)).reshape(-1, PANEL, *values.shape[1:])


def _float_lines(format: str, values: Float32) -> Array:
    if format == "fp32":
        return _bytes(_panels(values).transpose(0, 2, 1))
    paired = _panels(np.pad(values, [(0, 0), (0, values.shape[1] % 2)]))
    return _bytes(bf16(paired.reshape(len(paired), PANEL, -1, 2).transpose(0, 2, 1, 3)))


def _code_groups(format: str, codes: Array, shares: Array, points: Array | None) -> Array:
    padded = _panels(np.pad(codes, [(0, 0), (0, 0), (0, -codes.shape[2] % 8)]))  # [panels, 32, groups, padded]
    groups = padded.transpose(0, 2, 3, 1).reshape(*padded.shape[:1], padded.shape[2], -1, 4, PANEL)
    lines = groups.swapaxes(3, 4).astype(np.uint8)  # [panels, groups, quads, 32, 4]
    if format == "int4":
        lines = lines[:, :, 0::2] | lines[:, :, 1::2] << 4
    heads = [_panels(shares).transpose(0, 2, 1)]
    if points is not None:
        heads.append(_panels(points).transpose(0, 2, 1).astype(np.uint16))
    parts = [_bytes(part.reshape(*part.shape[:2], -1), keep=2) for part in [*heads, lines]]
    return np.concatenate(parts, axis=2).reshape(len(lines), -1)


def _bytes(values: Array, keep: int = 1) -> Array:
    contiguous = np.ascontiguousarray(values)
    return contiguous.reshape(*contiguous.shape[:keep], -1).view(np.uint8)


def _pack(format: str, values: Array, body: Array, scale: Float32, bias: Float32, group: int, zeros: bool
          ) -> NDArray[np.uint8]:
    heads = np.concatenate([_panels(scale), _panels(bias)], axis=1).view(np.uint8)
    panels = np.concatenate([heads, body], axis=1)
    header = struct.pack("<4sHBBIIIIQQ24x", b"OAGP", 1, NUMBERS[format], int(zeros), *values.shape, group, PANEL,
                         panels.shape[1], panels.size)
    return np.concatenate([np.frombuffer(header, np.uint8), panels.reshape(-1)])


class Coded(NamedTuple):
    """Rows in int8: codes [rows, groups, group], scales [rows, groups]."""

    codes: NDArray[np.int32]
    scales: Float32


def quantise_rows(x: Float32, group: int) -> Coded:
    """The largest magnitude of a group becomes 127; fp32 throughout, as the kernels."""
    grouped = x.reshape(len(x), -1, group or x.shape[1])
    most = np.abs(grouped).max(-1)
    inverse = np.divide(np.float32(127), most, out=np.zeros_like(most), where=most > 1e-30)
    return Coded(np.rint(grouped * inverse[..., None]).astype(np.int32), most / np.float32(127))


def linear(x: Float32, weight: Weight, group: int | None) -> NDArray[np.float64]:
    """x W^T + bias in fp64; `group`: x is rounded to int8 first, as for int8 and int4 weights."""
    if group is not None:
        codes, scales = quantise_rows(x, group)
        x = (codes * scales[..., None].astype(np.float64)).reshape(x.shape)
    return x.astype(np.float64) @ weight.values.T + weight.bias


def rms_norm(x: Float32, weight: Float32 | None, eps: float) -> NDArray[np.float64]:
    """Rows divided by their root mean square, times the weight."""
    exact = x.astype(np.float64)
    normed = exact / np.sqrt((exact ** 2).mean(1, keepdims=True) + eps)
    return normed if weight is None else normed * weight


def silu(x: Float32) -> NDArray[np.float64]:
    """x * sigmoid(x)."""
    exact = x.astype(np.float64)
    return exact / (1 + np.exp(-exact))


def attention(q: Float32, k: Float32, v: Float32, position: int, heads: int) -> NDArray[np.float64]:
    """Rows of one sequence from `position` on; q [rows, heads * dim], k and v [tokens, kv_heads, dim]."""
    dim = k.shape[2]
    out = np.empty((len(q), heads, dim))
    for row in range(len(q)):
        seen = position + row + 1
        for head in range(heads):
            kv = head * k.shape[1] // heads
            scores = k[:seen, kv].astype(np.float64) @ q[row].reshape(heads, dim)[head] / np.sqrt(dim)
            chances = np.exp(scores - scores.max())
            out[row, head] = chances @ v[:seen, kv].astype(np.float64) / chances.sum()
    return out.reshape(len(q), -1)
