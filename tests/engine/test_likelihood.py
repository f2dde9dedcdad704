"""Log-probabilities of given texts are those of transformers, however the texts are cut and put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from openautoglm.core.errors import GenerationError
from openautoglm.engine.likelihood import token_logprobs
from openautoglm.engine.pages import PagePool
from openautoglm.models import hf
from openautoglm.models.spec import GlmSpec
from openautoglm.runtime.load import load_program

SPEC = GlmSpec(vocab_size=96, hidden_size=32, layers=2, heads=4, kv_heads=2, head_dim=16, ffn_size=64, max_positions=64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("model")
    made = hf.build(SPEC, seed=3, init_std=0.2).eval()
    made.save_pretrained(folder)
    return folder, made


def expected(model: Any, ids: list[int], first: int) -> Any:
    with torch.inference_mode():
        logp = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
    return logp[torch.arange(first - 1, len(ids) - 1), torch.tensor(ids[first:], dtype=torch.long)].numpy()


@pytest.mark.parametrize(("max_rows", "max_wanted", "pages"), [(512, 64, 64), (7, 3, 16), (64, 1, 20), (1, 1, 16)])
def test_they_are_those_of_transformers(model: tuple[Path, Any], max_rows: int, max_wanted: int, pages: int) -> None:
    folder, theirs = model
    random = np.random.default_rng(1)
    texts = [(random.integers(0, 96, length).tolist(), int(random.integers(1, length + 1)))
             for length in (9, 2, 60, 1, 33, 64, 5)]
    program = load_program(folder, cache="fp32", page_size=4, pages=pages, max_rows=max_rows, max_wanted=max_wanted)
    pool = PagePool(pages, 4)
    found = token_logprobs(program, pool, texts)
    for (ids, first), logprobs in zip(texts, found, strict=True):
        assert np.allclose(logprobs, expected(theirs, ids, first), atol=1e-5)
    assert pool.available == pages


@pytest.mark.parametrize(("ids", "first", "fault"), [
    ([1, 2], 0, "none can be asked"), ([1, 2], 3, "none can be asked"), ([1, 96], 1, "outside the vocabulary"),
    ([1] * 65, 1, "64 positions")])
def test_faulty_texts_are_refused(model: tuple[Path, Any], ids: list[int], first: int, fault: str) -> None:
    program = load_program(model[0], cache="fp32", page_size=4, pages=32)
    with pytest.raises(GenerationError, match=fault):
        token_logprobs(program, PagePool(32, 4), [([1, 2, 3], 1), (ids, first)])


def test_pages_come_back_when_there_are_too_few(model: tuple[Path, Any]) -> None:
    program = load_program(model[0], cache="fp32", page_size=4, pages=32)
    pool = PagePool(32, 4)
    held = pool.take(30)
    with pytest.raises(GenerationError, match="pages"):
        token_logprobs(program, pool, [([1, 2, 3], 1), ([1] * 20, 1)])
    pool.release(held)
    assert pool.available == 32
