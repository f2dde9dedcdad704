"""A model small enough to build in a test, and a bundle of it."""

from __future__ import annotations

from typing import Any

import pytest

from openautoglm.models import hf
from openautoglm.models.bundle import Bundle
from openautoglm.models.bundle_writer import write_bundle
from openautoglm.models.spec import GlmSpec
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Trained on a few texts."""
    return Tokenizer.train(["The Punter is a cheap pub near Café Rouge."] * 4, 300)


@pytest.fixture(scope="session")
def spec(tokenizer: Tokenizer) -> GlmSpec:
    """A spec for that tokenizer, with tied embeddings."""
    shape = {"hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 8, "ffn_size": 48}
    small = GlmSpec(vocab_size=8, tied=True, max_positions=128, **shape)
    return small.with_vocabulary(
        tokenizer.vocab_size, pad_id=tokenizer.pad_id, eos_ids=(tokenizer.special["<|endoftext|>"],)
    )


@pytest.fixture(scope="session")
def model(spec: GlmSpec) -> Any:
    """Random weights, in evaluation mode."""
    return hf.build(spec, seed=1).eval()


@pytest.fixture(scope="session")
def written(
    tmp_path_factory: pytest.TempPathFactory, model: Any, spec: GlmSpec, tokenizer: Tokenizer
) -> Bundle:
    """A bundle on disk; copy it before you change it."""
    return write_bundle(
        tmp_path_factory.mktemp("bundles") / "bundle",
        model=model,
        spec=spec,
        tokenizer=tokenizer,
        template=Template(kind="pair"),
        card_facts={"data": "abc", "scores": {"BLEU": 1.5}, "recipe": {"seed": 1}},
    )
