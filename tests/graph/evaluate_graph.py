"""Runs graphs in numpy, fp64, one sequence without a cache: slow, short, and written without a look at any kernel.

Weights of 8 and 4 bits are rounded as the formats say in words; a kernel may choose better scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from openautoglm.graph.ir import Graph
from openautoglm.graph.sources import Concat, Quantised, Rows, Scaled, Source, Tensor

Array = np.ndarray[Any, Any]


def evaluate(graph: Graph, tensors: Mapping[str, Array], inputs: Mapping[str, Array]) -> list[Array]:
    """The outputs of a graph; `inputs` by name (the layout is not needed)."""
    known: dict[Any, Any] = {value: inputs.get(value.name) for value in graph.inputs}
    for value in graph.weights.values():
        known[value] = weight(value.source, tensors)
        assert known[value].shape == value.type.shape, value
    for node in graph.nodes:
        outputs = OPERATORS[node.operator]([known[value] for value in node.inputs], node.attributes)
        known |= zip(node.outputs, outputs, strict=True)
        for value in node.outputs:
            assert known[value].shape[1:] == value.type.shape[1:], value
    return [known[value] for value in graph.outputs]


def weight(source: Source | None, tensors: Mapping[str, Array]) -> Array:
    """The value of a source."""
    if isinstance(source, Tensor):
        return tensors[source.name]
    if isinstance(source, Concat):
        return np.concatenate([weight(part, tensors) for part in source.parts])
    assert source is not None
    of = weight(source.of, tensors)
    if isinstance(source, Rows):
        return of[source.start : source.stop]
    if isinstance(source, Scaled):
        return of * (source.by if isinstance(source.by, float) else weight(source.by, tensors))
    return rounded(of, source)


def rounded(matrix: Array, source: Quantised) -> Array:
    """A matrix after quantising and back."""
    if source.format == "fp32":
        return matrix.astype(np.float32).astype(float)
    if source.format == "bf16":  # 8 bits of fraction stay, the last one rounded to even
        share, power = np.frexp(matrix)
        return np.ldexp(np.rint(share * 256) / 256, power)
    levels = {"int8": 256, "int4": 16}[source.format]
    grouped = matrix.reshape(len(matrix), -1, source.group or matrix.shape[1])
    if source.symmetric:
        scale = np.abs(grouped).max(-1, keepdims=True) / (levels // 2 - 1)
        scale[scale == 0] = 1
        return (np.rint(grouped / scale) * scale).reshape(matrix.shape)
    least = np.minimum(grouped.min(-1, keepdims=True), 0)
    scale = (np.maximum(grouped.max(-1, keepdims=True), 0) - least) / (levels - 1)
    scale[scale == 0] = 1
    zero = np.rint(-least / scale)
    return ((np.clip(np.rint(grouped / scale) + zero, 0, levels - 1) - zero) * scale).reshape(matrix.shape)


def norm(x: Array, eps: float) -> Array:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def rotary(x: Array, positions: Array, head_dim: int, rotary_dims: int, theta: float) -> Array:
    heads = x.reshape(len(x), -1, head_dim).copy()
    angles = positions[:, None] * theta ** (-np.arange(0, rotary_dims, 2) / rotary_dims)
    turn = np.exp(1j * angles)[:, None]
    pairs = (heads[..., 0:rotary_dims:2] + 1j * heads[..., 1:rotary_dims:2]) * turn
    heads[..., 0:rotary_dims:2], heads[..., 1:rotary_dims:2] = pairs.real, pairs.imag
    return heads.reshape(x.shape)


def attention(q: Array, k: Array, v: Array, heads: int, kv_heads: int, head_dim: int, **_: Any) -> Array:
    rows = len(q)
    q, k, v = (x.reshape(rows, -1, head_dim).transpose(1, 0, 2) for x in (q, k, v))
    k, v = (x.repeat(heads // kv_heads, axis=0) for x in (k, v))
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(head_dim)
    scores[:, np.triu(np.ones((rows, rows), bool), 1)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = weights / weights.sum(-1, keepdims=True) @ v
    return mixed.transpose(1, 0, 2).reshape(rows, heads * head_dim)


def linear(x: Array, matrix: Array, bias: Array | float = 0.0) -> Array:
    return x @ matrix.T + bias


def codes(x: Array, group: int) -> list[Array]:
    grouped = x.reshape(len(x), -1, group or x.shape[1])
    scales = np.abs(grouped).max(-1) / 127
    return [np.rint(grouped / scales[..., None]).reshape(x.shape), scales]


def decoded(stored: Array, scales: Array) -> Array:
    return (stored.reshape(*scales.shape, -1) * scales[..., None]).reshape(stored.shape)


def gated(gate: Array, up: Array | None = None) -> Array:
    gate, up = np.split(gate, 2, axis=1) if up is None else (gate, up)
    return silu(gate) * up


OPERATORS: dict[str, Any] = {
    "embedding": lambda i, a: [i[1][i[0]]],
    "rms_norm": lambda i, a: [norm(i[0], a["eps"]) * i[1]],
    "linear": lambda i, a: [linear(*i)],
    "split": lambda i, a: np.split(i[0], np.cumsum(a["sizes"])[:-1], axis=1),
    "rotary": lambda i, a: [rotary(*i, **a)],
    "paged_attention": lambda i, a: [attention(*i[:3], **a)],
    "silu": lambda i, a: [silu(i[0])],
    "add": lambda i, a: [i[0] + i[1]],
    "mul": lambda i, a: [i[0] * i[1]],
    "gather_rows": lambda i, a: [i[0][i[1]]],
    "silu_mul": lambda i, a: [gated(*i)],
    "add_rms_norm": lambda i, a: [i[0] + i[1], norm(i[0] + i[1], a["eps"]) * i[2]],
    "unit_rms_norm": lambda i, a: [norm(i[0], a["eps"])],
    "norm_linear": lambda i, a: [linear(norm(i[0], a["eps"]) * i[1], *i[2:])],
    "quantised_linear": lambda i, a: [linear(*i)],
    "quantise_rows": lambda i, a: codes(i[0], a["group"]),
    "quantised_rows_linear": lambda i, a: [linear(decoded(i[0], i[1]), *i[2:])],
    "rms_norm_quantise": lambda i, a: codes(norm(i[0], a["eps"]) * i[1], a["group"]),
    "add_rms_norm_quantise": lambda i, a: [i[0] + i[1], *codes(norm(i[0] + i[1], a["eps"]) * i[2], a["group"])],
    "silu_mul_quantise": lambda i, a: codes(gated(*i), a["group"]),
}
