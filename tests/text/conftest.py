"""A small tokenizer, and one with the traits of GLM-4's released files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import processors

from openautoglm.text.tokenizer import Tokenizer

TEXTS = [
    "The Punter is a cheap pub near Café Rouge.",
    "关关雎鸠，在河之洲。窈窕淑女，君子好逑。",
    "x = [1, 22, 333];\n",
] * 4


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Trained on a few texts."""
    return Tokenizer.train(TEXTS, 400)


@pytest.fixture
def released(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """A folder with a tokenizer whose post-processor prepends ``[gMASK]<sop>``, as the released ones do."""
    tokenizer.save(tmp_path)
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    heads = [(token, tokenizer.special[token]) for token in ("[gMASK]", "<sop>")]
    backend.post_processor = processors.TemplateProcessing(
        single="[gMASK] <sop> $A", pair="[gMASK] <sop> $A $B", special_tokens=heads
    )
    backend.enable_truncation(8)
    backend.enable_padding(length=64)
    (tmp_path / "tokenizer.json").write_text(json.dumps(json.loads(backend.to_str())), encoding="utf-8")
    return tmp_path
