"""Tiny specs with random weights, and comparing a graph before and after rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from evaluate_graph import evaluate

from openautoglm.graph import Graph, build
from openautoglm.models.spec import GlmSpec

SPECS = {
    "glm": GlmSpec(vocab_size=24, hidden_size=16, layers=3, heads=4, kv_heads=2, head_dim=8, ffn_size=12),
    "edge": GlmSpec(vocab_size=24, hidden_size=16, layers=2, heads=2, kv_heads=1, head_dim=8, ffn_size=20,
                    rotary_factor=1.0, qkv_bias=False, tied=True),
    "glm4": GlmSpec(family="glm4", vocab_size=24, hidden_size=8, layers=2, heads=2, kv_heads=2, head_dim=4, ffn_size=8),
}
WIDE = {
    "edge": GlmSpec(vocab_size=48, hidden_size=64, layers=2, heads=2, kv_heads=1, head_dim=32, ffn_size=96,
                    rotary_factor=1.0, qkv_bias=False, tied=True),
    "glm4": GlmSpec(family="glm4", vocab_size=48, hidden_size=32, layers=2, heads=2, kv_heads=2, head_dim=16,
                    ffn_size=64),
}
"""Wide enough for groups of 32."""


def checkpoint(spec: GlmSpec, seed: int = 0) -> dict[str, Any]:
    """Random tensors as a checkpoint of `spec` has them; those of norms are near one."""
    random = np.random.default_rng(seed)
    h, tensors = spec.hidden_size, dict[str, Any]()

    def add(name: str, *shape: int) -> None:
        tensors[name] = random.normal(float("norm" in name), 0.5 if len(shape) == 1 else 1 / shape[-1] ** 0.5, shape)

    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        add(name, spec.vocab_size, h)
    for layer in (f"model.layers.{number}" for number in range(spec.layers)):
        for name, width in (("q", spec.query_size), ("k", spec.kv_size), ("v", spec.kv_size)):
            add(f"{layer}.self_attn.{name}_proj.weight", width, h)
            add(f"{layer}.self_attn.{name}_proj.bias", width)
        add(f"{layer}.self_attn.o_proj.weight", h, spec.query_size)
        add(f"{layer}.mlp.gate_up_proj.weight", 2 * spec.ffn_size, h)
        add(f"{layer}.mlp.down_proj.weight", h, spec.ffn_size)
        for norm in ("input_layernorm", "post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm"):
            add(f"{layer}.{norm}.weight", h)
    add("model.norm.weight", h)
    return tensors


def step(spec: GlmSpec, rows: int = 7, seed: int = 1) -> dict[str, Any]:
    """Inputs of a step: one sequence, logits of some rows asked for."""
    random = np.random.default_rng(seed)
    return {"ids": random.integers(0, spec.vocab_size, rows), "positions": np.arange(rows),
            "wanted": random.permutation(rows)[:3]}


def logits(graph: Graph, spec: GlmSpec, seed: int = 0) -> Any:
    """What the graph computes."""
    return evaluate(graph, checkpoint(spec, seed), step(spec, seed=seed + 1))[0]


def largest_error(spec: GlmSpec, change: Callable[[Graph], object], seed: int = 0) -> float:
    """How far `change` moves the logits: largest difference / largest logit."""
    graph = build(spec)
    before = logits(graph, spec, seed)
    change(graph)
    graph.verify()
    after = logits(graph, spec, seed)
    return float(np.abs(after - before).max() / np.abs(before).max())


def operators(graph: Graph) -> list[str]:
    """The operators of a graph in order."""
    return [node.operator for node in graph.nodes]
