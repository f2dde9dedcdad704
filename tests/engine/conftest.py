"""Small random models that generate varied texts and stop now and then."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from openautoglm.models import hf
from openautoglm.models.bundle import Bundle
from openautoglm.models.bundle_writer import write_bundle
from openautoglm.models.spec import GlmSpec
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer

STOP = 3


@pytest.fixture(scope="session", params=["glm", "glm4"])
def model(request: pytest.FixtureRequest) -> Any:
    """Large random weights, so that logits differ; ids 0 to 39, of which 3 stops."""
    shape = {"hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 8, "ffn_size": 48}
    spec = GlmSpec(family=request.param, vocab_size=40, max_positions=64, eos_ids=(STOP,), **shape)
    made = hf.build(spec, seed=3, init_std=0.5).eval()
    made.lm_head.weight.data[STOP] *= 2.0  # ends some answers early
    return made


@pytest.fixture(scope="session")
def prompts() -> list[list[int]]:
    """Of one to eighteen ids, in no order."""
    dice = random.Random(1)
    return [[dice.randrange(5, 40) for _ in range(dice.randrange(1, 19))] for _ in range(12)]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """An untrained bundle that writes something."""
    tokenizer = Tokenizer.train(["The Punter is a cheap pub near Café Rouge."] * 4, 300)
    shape = {"hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 8, "ffn_size": 48}
    spec = GlmSpec(vocab_size=8, max_positions=128, **shape).with_vocabulary(
        tokenizer.vocab_size, pad_id=tokenizer.pad_id, eos_ids=(tokenizer.special["<|endoftext|>"],)
    )
    path: Path = tmp_path_factory.mktemp("bundles") / "bundle"
    model = hf.build(spec, seed=1, init_std=0.3)
    return write_bundle(path, model=model, spec=spec, tokenizer=tokenizer, template=Template(), card_facts={})
