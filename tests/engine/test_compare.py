"""What two programs say of the same texts, fed token by token, against plain logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from openautoglm.core.errors import GenerationError
from openautoglm.engine.compare import compare
from openautoglm.engine.engine import Engine
from openautoglm.engine.open import ProgramSettings, open_engine
from openautoglm.engine.request import Decoding, Request
from openautoglm.graph.recipe import Quantisation
from openautoglm.models import hf
from openautoglm.models.spec import GlmSpec

SPEC = GlmSpec(vocab_size=64, hidden_size=32, layers=2, heads=2, kv_heads=1, head_dim=16, ffn_size=64, max_positions=64,
               eos_ids=(1,))
TEXTS = [([3, 4, 5, 6, 7, 8, 9], 3), ([10, 11], 1), ([12, 13, 14], 3), (list(range(20, 60)), 9)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with weights large enough that its predictions are not all alike."""
    import torch

    model = hf.build(SPEC, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    path = tmp_path_factory.mktemp("compare") / "checkpoint"
    model.save_pretrained(path)
    return path


def opened(folder: Path, **settings: object) -> Engine:
    small = {"target": "torch:cpu", "cache_tokens": 512, "max_rows": 16, "max_wanted": 8}
    return open_engine(folder, ProgramSettings.model_validate({**small, **settings}))


def logprobs(folder: Path, ids: list[int]) -> NDArray[np.float64]:
    """Log-probabilities [T, V] of a text by transformers."""
    import torch

    model = hf.load(folder)[0].eval()
    with torch.no_grad():
        found: NDArray[np.float64] = model(torch.tensor([ids])).logits[0].double().log_softmax(-1).numpy()
    return found


def test_a_model_is_no_way_from_itself(folder: Path) -> None:
    found = compare(opened(folder), opened(folder), TEXTS)
    assert found.tokens == sum(len(ids) - first for ids, first in TEXTS)
    assert (found.kl, found.agreement) == (0.0, 1.0)
    assert found.nll[0] == found.nll[1]
    engine = opened(folder)
    assert compare(engine, engine, TEXTS) == found  # one engine read once is both
    assert engine.pool.held == 0


def test_figures_are_those_of_whole_forward_passes(folder: Path, tmp_path: Path) -> None:
    import torch

    other = hf.build(SPEC, seed=2)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(4)
    other.save_pretrained(tmp_path / "other")
    first, second = opened(folder), opened(tmp_path / "other")
    done: list[int] = []
    found = compare(first, second, TEXTS, done.append)
    kl, same, nll = 0.0, 0, np.zeros(2)
    for ids, begin in TEXTS:
        one, two = logprobs(folder, ids), logprobs(tmp_path / "other", ids)
        for at in range(begin, len(ids)):
            p, q = one[at - 1], two[at - 1]
            kl += float((np.exp(p) * (p - q)).sum())
            same += int(p.argmax() == q.argmax())
            nll -= np.array([p[ids[at]], q[ids[at]]])
    assert found.kl == pytest.approx(kl / found.tokens, rel=1e-3)
    assert found.agreement == pytest.approx(same / found.tokens)
    assert found.nll == pytest.approx(tuple(nll / found.tokens), rel=1e-4)
    assert found.perplexity == pytest.approx(tuple(np.exp(nll / found.tokens)), rel=1e-3)
    assert sum(done) == len(TEXTS)
    assert first.pool.held == second.pool.held == 0


@pytest.mark.parametrize("change", [{"cache": "int8"}, {"quantise": Quantisation(format="int4", group=32)}],
                         ids=["cache", "weights"])
def test_fewer_bits_are_seen(folder: Path, change: dict[str, object]) -> None:
    plain = {"target": "auto", "cache": "fp32"}
    found = compare(opened(folder, **plain), opened(folder, **{**plain, **change}), TEXTS)
    assert found.kl > 1e-7
    assert compare(opened(folder, **plain), opened(folder, **plain), TEXTS).kl == pytest.approx(0, abs=1e-9)


def test_what_cannot_be_compared_is_said(folder: Path, tmp_path: Path) -> None:
    one, other = opened(folder), opened(folder)
    for texts, said in (([([5], 1)], "no token"), ([([5, 6], 0)], "cannot be followed"), ([([5, 99], 1)], "vocabulary"),
                        ([([5] * 65, 1)], "cannot be followed")):
        with pytest.raises(GenerationError, match=said):
            compare(one, other, texts)
        assert one.pool.held == other.pool.held == 0
    ticket = one.submit(Request((5, 6), Decoding(max_new_tokens=2)))
    with pytest.raises(GenerationError, match="under way"):
        compare(one, other, TEXTS)
    one.cancel(ticket)
    hf.build(SPEC.model_copy(update={"vocab_size": 72}), seed=0).save_pretrained(tmp_path / "wide")
    with pytest.raises(GenerationError, match="vocabularies"):
        compare(one, opened(tmp_path / "wide"), TEXTS)
