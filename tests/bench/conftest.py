"""Makes the helpers of this folder importable; a small bundle that the native target can run, too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from openautoglm.models import hf
from openautoglm.models.bundle import Bundle
from openautoglm.models.bundle_writer import write_bundle
from openautoglm.models.spec import GlmSpec
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """One with some fifty words that are a token each."""
    words = [f"{first}{second}" for first in ("ta", "re", "mi", "so", "lu", "ke", "no") for second in
             ("bo", "da", "fi", "gu", "he", "ja", "po")]
    return Tokenizer.train([" ".join(words)] * 8, 420)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Bundle:
    """An untrained bundle that writes something."""
    shape = {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 16, "ffn_size": 48}
    spec = GlmSpec(vocab_size=8, max_positions=128, **shape).with_vocabulary(
        tokenizer.vocab_size, pad_id=tokenizer.pad_id, eos_ids=(tokenizer.special["<|endoftext|>"],))
    model = hf.build(spec, seed=1, init_std=0.3)
    path = tmp_path_factory.mktemp("bundles") / "small"
    return write_bundle(path, model=model, spec=spec, tokenizer=tokenizer, template=Template(), card_facts={})
