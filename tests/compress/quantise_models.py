"""Small checkpoints and calibrations for the tests of quantisation."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openautoglm.models import hf
from openautoglm.models.quantised_file import open_quantised
from openautoglm.models.spec import GlmSpec

VOCABULARY = 96


def small_spec(family: str = "glm", *, tied: bool = False, **changes: Any) -> GlmSpec:
    """Two layers, four heads that share two kv heads, half of the head turned."""
    facts = {"family": family, "vocab_size": VOCABULARY, "hidden_size": 64, "layers": 2, "heads": 4, "kv_heads": 2,
             "head_dim": 16, "ffn_size": 96, "tied": tied, "qkv_bias": family == "glm", "max_positions": 64}
    return GlmSpec(**(facts | changes))


def small_checkpoint(folder: Path, spec: GlmSpec, dtype: torch.dtype = torch.float32, shard: str = "5GB") -> Any:
    """Save random weights whose norms differ much between channels; return the model in fp32."""
    model = hf.build(spec, seed=1, init_std=0.2).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                spread = torch.randn(weight.shape, generator=generator)
                weight.copy_(spread.mul(0.1) if name.endswith("bias") else spread.exp())
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    return model.float()


def sequences(count: int = 24, seed: int = 0) -> list[list[int]]:
    """Random ids of different lengths, some ids far more often than others."""
    rng = np.random.default_rng(seed)
    return [(rng.integers(0, VOCABULARY, rng.integers(3, 40)) // rng.integers(1, 4)).tolist() for _ in range(count)]


def quantised_model(model: Any, file: Path) -> Any:
    """The model with what the file holds in place of its weights."""
    found, changed = open_quantised(file), copy.deepcopy(model)
    state = changed.state_dict()
    with torch.no_grad():
        for name in found.names:
            value = found.read(name)
            plain = value if isinstance(value, np.ndarray) else value.dequantise()
            state[name].copy_(torch.from_numpy(np.array(plain)))
    missing = set(state) - set(found.names)
    assert missing == ({"lm_head.weight"} if model.config.tie_word_embeddings else set())
    return changed


def divergence(model: Any, other: Any, seed: int = 9) -> float:
    """KL in nats a token on sequences that no calibration has."""
    ids = torch.from_numpy(np.random.default_rng(seed).integers(0, VOCABULARY, (16, 32)))
    with torch.no_grad():
        own, others = (each(ids).logits.log_softmax(-1) for each in (model, other))
    return float((own.exp() * (own - others)).sum(-1).mean())
