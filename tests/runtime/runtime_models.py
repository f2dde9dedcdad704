"""Tiny random models on disk, and what transformers says of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from openautoglm.models import hf
from openautoglm.models.spec import GlmSpec
from openautoglm.runtime.layout import Part, lay_out
from openautoglm.runtime.program import Program

PAGE_SIZE, PAGES = 4, 40


def tiny_spec(**changes: Any) -> GlmSpec:
    """A spec of two layers; `changes` replace its facts."""
    facts: dict[str, Any] = {"vocab_size": 96, "hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2,
                             "head_dim": 16, "ffn_size": 64, "max_positions": 64}
    return GlmSpec(**{**facts, **changes})


def write_checkpoint(folder: Path, spec: GlmSpec, *, seed: int = 0, **save: Any) -> Any:
    """Write a plain checkpoint of random weights, norms and biases too, and return its model in fp32."""
    model = hf.build(spec, seed=seed, init_std=0.2).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.dim() == 1:
                tensor += 0.2 * torch.randn(tensor.shape, generator=generator)
    model.save_pretrained(folder, **save)
    return model


def random_ids(spec: GlmSpec, count: int, seed: int = 0) -> list[int]:
    """Random token ids."""
    return np.random.default_rng(seed).integers(0, spec.vocab_size, count).tolist()


def reference(model: Any, ids: Sequence[int]) -> NDArray[np.float32]:
    """Logits [tokens, vocabulary] of transformers."""
    with torch.inference_mode():
        logits: NDArray[np.float32] = model(torch.tensor([list(ids)])).logits[0].float().numpy()
    return logits


def apart(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The relative distance of two arrays."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


class Reader:
    """Sequences of a program: feeds tokens, keeps lengths and pages."""

    def __init__(self, program: Program, pages: Iterable[int] = range(PAGES)) -> None:
        self.program, self.free = program, list(pages)
        self.lengths: dict[str, int] = {}
        self.pages: dict[str, list[int]] = {}

    def step(self, given: dict[str, Sequence[int]]) -> dict[str, NDArray[np.float32]]:
        """Feed each named sequence some ids in one step; return the logits of all rows by name."""
        parts = [self._part(name, len(ids)) for name, ids in given.items()]
        size, pages = self.program.plan.cache.page_size, self.program.plan.cache.pages
        layout = lay_out(parts, page_size=size, pages=pages)
        ids = np.concatenate([np.asarray(some, np.int32) for some in given.values()])
        logits = self.program.step(ids, layout.positions, layout, np.arange(layout.rows, dtype=np.int32))
        return dict(zip(given, np.split(logits, layout.first_rows[1:-1]), strict=True))

    def end(self, name: str) -> None:
        """Give the pages of a sequence back, the last one to be used first."""
        self.free = self.pages.pop(name) + self.free
        del self.lengths[name]

    def _part(self, name: str, tokens: int) -> Part:
        start = self.lengths.get(name, 0)
        self.lengths[name] = start + tokens
        mine = self.pages.setdefault(name, [])
        while len(mine) * self.program.plan.cache.page_size < start + tokens:
            mine.append(self.free.pop())
        return Part(tokens, start, mine)
