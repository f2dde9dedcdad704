"""A walk of the calibration through a layer, place by place, with one place's weights and sums in memory at a time.

A layer is computed in five passes over the states: sums for q/k/v; attention and sums for o; what o adds, and sums for
gate/up; sums for down; what down adds. So each matrix sees what comes out of the quantised ones before it, also of its
own layer, at the price of one and a half ordinary passes.
Letters in names: T tokens, H heads, D width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from openautoglm.compress.calibrate import Batch, Calibration, States
from openautoglm.compress.source import EMBEDDING, NORM, Source
from openautoglm.compress.statistics import Statistics
from openautoglm.models.spec import GlmSpec

Treat = Callable[[str, Statistics], Tensor]
"""Given a place and what its inputs look like, the matrix [O, I] that the walk goes on with."""


def rms_norm(states: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Divide each row by its root mean square (Zhang & Sennrich 2019), times `weight`."""
    return states * torch.rsqrt(states.square().mean(-1, keepdim=True) + eps) * weight


class Rotary:
    """Interleaved rotary positions over the first part of each head (Su et al. 2021)."""

    def __init__(self, spec: GlmSpec, longest: int) -> None:
        width = int(spec.head_dim * spec.rotary_factor)
        frequency = 1.0 / (spec.rope_theta ** (torch.arange(0, width, 2).float() / width))
        angle = torch.arange(longest).float()[:, None] * frequency
        self.width = width
        self._cos, self._sin = angle.cos()[:, None], angle.sin()[:, None]

    def turn(self, heads_THD: Tensor, positions: Tensor) -> Tensor:
        """Turn heads [T, H, D] by their positions [T]."""
        even, odd = heads_THD[..., :self.width:2], heads_THD[..., 1:self.width:2]
        cos, sin = self._cos[positions], self._sin[positions]
        turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)
        return torch.cat((turned, heads_THD[..., self.width:]), -1)


def attend(qkv: Tensor, lengths: tuple[int, ...], spec: GlmSpec, rotary: Rotary) -> Tensor:
    """Causal attention within each sequence: [T, q + k + v] to [T, q]."""
    positions = torch.cat([torch.arange(length) for length in lengths])
    q, k, v = (part.view(len(qkv), -1, spec.head_dim)
               for part in torch.split(qkv, [spec.query_size, spec.kv_size, spec.kv_size], 1))
    q, k = rotary.turn(q, positions), rotary.turn(k, positions)
    outputs, start = [], 0
    for length in lengths:
        one = slice(start, start + length)
        answer = F.scaled_dot_product_attention(q[one].transpose(0, 1)[None], k[one].transpose(0, 1)[None],
                                                v[one].transpose(0, 1)[None], is_causal=True, enable_gqa=True)
        outputs.append(answer[0].transpose(0, 1).reshape(length, -1))
        start += length
    return torch.cat(outputs)


@dataclass(frozen=True)
class Norms:
    """The small tensors of a layer: its norms (the last two of ``glm4`` only) and the biases of q, k and v."""

    before: Tensor
    middle: Tensor
    after_attention: Tensor | None
    after_mlp: Tensor | None
    bias: Tensor | None


def norms_of(source: Source, layer: int) -> Norms:
    """Read the small tensors of a layer."""
    more = source.spec.family == "glm4"
    return Norms(source.norm(layer, "input_layernorm"), source.norm(layer, "post_attention_layernorm"),
                 source.norm(layer, "post_self_attn_layernorm") if more else None,
                 source.norm(layer, "post_mlp_layernorm") if more else None, source.bias(layer))


class Walk:
    """The calibration's way through the layers.

    Args:
        states: [T, hidden] the input of the next layer; replaced by its output.
        attended: [T, query] room for what attention gives.
    """

    def __init__(self, spec: GlmSpec, states: States, attended: States, batches: list[Batch]) -> None:
        self.spec, self.states, self.attended, self.batches = spec, states, attended, batches
        self.rotary = Rotary(spec, max(max(batch.lengths) for batch in batches))

    def layer(self, norms: Norms, treat: Treat) -> None:
        """Walk through one layer; `treat` is called for each of its places in order."""
        weight = treat("qkv", self._sums(self.spec.hidden_size, lambda batch: self._normed(batch, norms.before)))
        seen = Statistics(self.spec.query_size)
        for batch in self.batches:
            qkv = F.linear(self._normed(batch, norms.before), weight, norms.bias)
            answer = attend(qkv, batch.lengths, self.spec, self.rotary)
            self.attended.write(batch.start, answer)
            seen.add(answer)
        weight = treat("o", seen.close())
        seen = Statistics(self.spec.hidden_size)
        for batch in self.batches:
            added = F.linear(self.attended.read(batch.start, batch.stop), weight)
            self._add(batch, added, norms.after_attention)
            seen.add(self._normed(batch, norms.middle))
        wide = treat("gate_up", seen.close())
        del seen, weight
        weight = treat("down", self._sums(self.spec.ffn_size, lambda batch: self._gated(batch, norms.middle, wide)))
        for batch in self.batches:
            self._add(batch, F.linear(self._gated(batch, norms.middle, wide), weight), norms.after_mlp)

    def normed(self, source: Source) -> Statistics:
        """What the head sees, after the last layer."""
        weight = source.tensor(NORM)
        return self._sums(self.spec.hidden_size, lambda batch: self._normed(batch, weight))

    def _sums(self, width: int, inputs: Callable[[Batch], Tensor]) -> Statistics:
        seen = Statistics(width)
        for batch in self.batches:
            seen.add(inputs(batch))
        return seen.close()

    def _normed(self, batch: Batch, weight: Tensor) -> Tensor:
        return rms_norm(self.states.read(batch.start, batch.stop), weight, self.spec.rms_eps)

    def _gated(self, batch: Batch, norm: Tensor, weight: Tensor) -> Tensor:
        gate, up = F.linear(self._normed(batch, norm), weight).chunk(2, 1)
        return F.silu(gate).mul_(up)

    def _add(self, batch: Batch, values: Tensor, norm: Tensor | None) -> None:
        if norm is not None:
            values = rms_norm(values, norm, self.spec.rms_eps)
        self.states.write(batch.start, self.states.read(batch.start, batch.stop) + values)


def forward(states: Tensor, lengths: tuple[int, ...], weights: dict[str, Tensor], norms: Norms, spec: GlmSpec,
            rotary: Rotary) -> Tensor:
    """One layer on the states [T, hidden] of some sequences, with a matrix for each place."""
    normed = rms_norm(states, norms.before, spec.rms_eps)
    answer = attend(F.linear(normed, weights["qkv"], norms.bias), lengths, spec, rotary)
    added = F.linear(answer, weights["o"])
    states = states + (added if norms.after_attention is None else rms_norm(added, norms.after_attention, spec.rms_eps))
    gate, up = F.linear(rms_norm(states, norms.middle, spec.rms_eps), weights["gate_up"]).chunk(2, 1)
    added = F.linear(F.silu(gate).mul_(up), weights["down"])
    return states + (added if norms.after_mlp is None else rms_norm(added, norms.after_mlp, spec.rms_eps))


def embed(source: Source, table: Callable[[int, int], Tensor], states: States, ids: Tensor) -> None:
    """Fill the states with the rows of the embedding, which is read span by span."""
    for start, stop in source.rows("model.embed_tokens.weight"):
        wanted = ((ids >= start) & (ids < stop)).nonzero().flatten()
        if len(wanted):
            rows = table(start, stop)
            for place in wanted.tolist():
                states.write(place, rows[ids[place] - start][None])


class Passage:
    """Some tokens on their way through the layers as they are; states are given to each call."""

    def __init__(self, source: Source, calibration: Calibration) -> None:
        self.source, self.batches = source, calibration.batches()
        self._ids = torch.tensor([token for ids in calibration.sequences for token in ids])
        self._rotary = Rotary(source.spec, calibration.longest)

    def begin(self, states: States) -> None:
        """Fill the states with the embeddings of the tokens."""
        embed(self.source, lambda start, stop: self.source.tensor(EMBEDDING, start, stop), states, self._ids)

    def read(self, layer: int) -> tuple[Norms, dict[str, Tensor]]:
        """Norms and matrices of a layer."""
        return norms_of(self.source, layer), {slot: self.source.matrix(layer, slot) for slot in self.source.slots}

    def through(self, layer: int, *others: States) -> None:
        """Take all these states through a layer."""
        norms, weights = self.read(layer)
        for states in others:
            self.advance(states, states, weights, norms)

    def advance(self, start: States, end: States, weights: dict[str, Tensor], norms: Norms) -> None:
        """From the input of a layer to its output."""
        for batch in self.batches:
            states = start.read(batch.start, batch.stop)
            end.write(batch.start, forward(states, batch.lengths, weights, norms, self.source.spec, self._rotary))
