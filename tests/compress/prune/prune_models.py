"""Tiny random models of both families, and examples for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from openautoglm.compress.prune.examples import ExampleBatch, example_batches
from openautoglm.compress.prune.structure import Cut, spread
from openautoglm.data.tokens import TokenStore, store_from_ids
from openautoglm.models import hf
from openautoglm.models.spec import GlmSpec

FORMS = [("glm", True, True), ("glm", False, False), ("glm4", False, True), ("glm4", True, False)]
FORM_NAMES = ["glm-tied-bias", "glm-untied", "glm4-bias", "glm4-tied"]


def small_spec(**changes: Any) -> GlmSpec:
    """Three layers, 8 heads in 4 groups, 96 channels."""
    facts: dict[str, Any] = {"vocab_size": 96, "hidden_size": 32, "layers": 3, "heads": 8, "kv_heads": 4,
                             "head_dim": 16, "ffn_size": 96, "max_positions": 64}
    return GlmSpec(**{**facts, **changes})


def random_model(spec: GlmSpec, seed: int = 0) -> Any:
    """Random weights, norms and biases too."""
    model = hf.build(spec, seed=seed, init_std=0.2).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.dim() == 1:
                tensor += 0.2 * torch.randn(tensor.shape, generator=generator)
    return model


def random_examples(rows: int = 24, seed: int = 0, vocabulary: int = 96) -> TokenStore:
    """Random ids with prompts."""
    rng = np.random.default_rng(seed)
    return store_from_ids((rng.integers(0, vocabulary, 6 + row % 9).tolist(), 3) for row in range(rows))


def random_batches(spec: GlmSpec, rows: int = 24) -> list[ExampleBatch]:
    """The same as batches."""
    return example_batches(random_examples(rows), spec, rows)


def logits(model: Any) -> torch.Tensor:
    """Of fixed ids."""
    with torch.inference_mode():
        result: torch.Tensor = model(torch.arange(40).view(2, 20)).logits
    return result


def zeroed(model: Any, spec: GlmSpec, cut: Cut) -> Any:
    """A copy of the whole model whose removed parts add nothing: the columns of the output matrices are zero."""
    copy = random_copy(model, spec)
    with torch.no_grad():
        for number, layer in enumerate(copy.model.layers):
            if number not in cut.layers:
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
                continue
            place = cut.layers.index(number)
            for matrix, stay in ((layer.self_attn.o_proj, spread(cut.heads[place], spec.head_dim)),
                                 (layer.mlp.down_proj, torch.tensor(cut.channels[place]))):
                gone = torch.ones(matrix.in_features, dtype=torch.bool)
                gone[stay] = False
                matrix.weight[:, gone] = 0
    return copy


def random_copy(model: Any, spec: GlmSpec) -> Any:
    """A copy of a model."""
    copy = hf.build(spec, seed=9).eval()
    copy.load_state_dict(model.state_dict())
    return copy
