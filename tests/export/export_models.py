"""Writes small random bundles whose rows are blocks of 32, of every form that llama.cpp treats apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from openautoglm.models import hf
from openautoglm.models.bundle import Bundle
from openautoglm.models.bundle_writer import write_bundle
from openautoglm.models.spec import GlmSpec
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer

SHAPE: dict[str, Any] = {"hidden_size": 64, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 16, "ffn_size": 96,
                         "max_positions": 128}
FORMS: dict[str, dict[str, Any]] = {
    "glm": {"rotary_factor": 0.5, "qkv_bias": True, "rope_theta": 5e6},
    "edge": {"rotary_factor": 1.0, "qkv_bias": False, "tied": True},
    "glm4": {"family": "glm4", "rotary_factor": 0.5, "qkv_bias": True, "rms_eps": 1.5625e-7},
}


def write_random(path: Path, tokenizer: Tokenizer, kind: str = "pair", dtype: Any = "float32", **facts: Any) -> Bundle:
    """Write a bundle of random weights; no norm is one and no bias zero."""
    template = Template(kind=kind)  # type: ignore[arg-type]
    spec = GlmSpec(vocab_size=8, **{**SHAPE, **facts}).with_vocabulary(
        tokenizer.vocab_size, pad_id=tokenizer.pad_id, eos_ids=template.stop_ids(tokenizer))
    model = hf.build(spec, seed=1, init_std=0.2)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "bias" in name or "norm" in name:
                values += 0.3 * torch.randn(values.shape, generator=generator)
    return write_bundle(path, model=model, spec=spec, tokenizer=tokenizer, template=template, card_facts={},
                        dtype=dtype)
