"""The two shapes that the engines are timed on, and what a token of theirs costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A GLM with random weights; rotary over the whole head, no bias, untied head.

    Attributes:
        decode_tokens: tokens decoded in one measurement at batch 1.
        inner_repeats: runs of a cheap measurement in one process, whose median is printed.
        prefix_tokens: length of the prompt whose logits are compared.
    """

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    decode_tokens: int
    inner_repeats: int
    int4_group: int
    prefix_tokens: int = 96

    @property
    def layer_parameters(self) -> int:
        """Matrix weights of all layers."""
        attention = (2 * self.heads + 2 * self.kv_heads) * self.head_dim * self.hidden
        return self.layers * (attention + 3 * self.hidden * self.ffn)

    @property
    def read_parameters(self) -> int:
        """Weights that one decoded token reads: the layers and the head, not the embedding."""
        return self.layer_parameters + self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All matrix weights."""
        return self.read_parameters + self.vocab * self.hidden


SHAPES = {shape.name: shape for shape in (
    Shape("S", hidden=512, layers=8, heads=8, kv_heads=2, head_dim=64, ffn=1408, vocab=8000,
          decode_tokens=256, inner_repeats=5, int4_group=64),
    Shape("E", hidden=2048, layers=28, heads=16, kv_heads=4, head_dim=128, ffn=6144, vocab=59264,
          decode_tokens=32, inner_repeats=1, int4_group=128),
)}
