"""Tiny models and stores for the tests of training."""

from __future__ import annotations

import numpy as np
import torch

from openautoglm.data.tokens import store_from_ids

VOCABULARY = 61


def tiny_model(family: str = "glm", **changes):
    """Two layers, 4 heads sharing 2 kv heads, half of the head turned; fp32."""
    from transformers import Glm4Config, Glm4ForCausalLM, GlmConfig, GlmForCausalLM

    classes = {"glm": (GlmConfig, GlmForCausalLM), "glm4": (Glm4Config, Glm4ForCausalLM)}
    config_class, model_class = classes[family]
    facts = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48, "pad_token_id": None,
             "bos_token_id": None, "eos_token_id": 1, "attention_bias": family == "glm",
             "initializer_range": 0.2,
             "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}
    config = config_class(**(facts | changes))
    config._attn_implementation = "sdpa"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model_class(config).eval()


def random_store(sources: int = 8, references: int = 2, prompt: tuple[int, int] = (3, 9),
                 target: tuple[int, int] = (2, 12), seed: int = 0):
    """Random ids; every source has several targets. The second id of a prompt numbers the source."""
    rng = np.random.default_rng(seed)
    rows = []
    for source in range(sources):
        words = rng.integers(3, VOCABULARY, rng.integers(*prompt))
        head = [2, source % VOCABULARY, source // VOCABULARY, *words]
        rows.extend(([*head, *rng.integers(3, VOCABULARY, rng.integers(*target)), 1], len(head))
                    for _ in range(references))
    return store_from_ids(rows)
