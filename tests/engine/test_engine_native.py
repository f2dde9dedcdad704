"""The engine on the native target: the same texts as on torch, and its sampler the same as the reference."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openautoglm.engine.engine import Engine
from openautoglm.engine.sample import sample
from openautoglm.engine.sampling import Sampling
from openautoglm.engine.settings import EngineSettings, Speculation
from openautoglm.models import hf
from openautoglm.models.spec import GlmSpec
from openautoglm.runtime.load import load_program
from openautoglm.runtime.native import native_module, why_not

pytestmark = pytest.mark.skipif(native_module() is None, reason=f"the native runtime is not built: {why_not()}")

WAYS = [Sampling(max_new_tokens=16), Sampling(max_new_tokens=12, num_beams=4, n=4),
        Sampling(max_new_tokens=12, temperature=1.0, n=3, seed=5),
        Sampling(max_new_tokens=12, temperature=0.8, top_p=0.8, top_k=20, min_p=0.01, n=2, repetition_penalty=1.2)]


@pytest.fixture(scope="module", params=["glm", "glm4"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large random weights, so that logits differ; heads as wide as the native kernels need."""
    spec = GlmSpec(family=request.param, vocab_size=40, max_positions=64, eos_ids=(3,), hidden_size=32, layers=2,
                   heads=4, kv_heads=2, head_dim=16, ffn_size=48)
    made: Path = tmp_path_factory.mktemp("native-engine")
    model = hf.build(spec, seed=3, init_std=0.5).eval()
    model.lm_head.weight.data[3] *= 2.0  # ends some answers early
    model.save_pretrained(made)
    return made


def engine_of(folder: Path, target: str, **settings: Any) -> Engine:
    program = load_program(folder, target, cache="fp32", pages=60, page_size=16, max_rows=48, max_wanted=16)
    return Engine(program, EngineSettings(**settings))


@pytest.fixture(scope="module")
def on_torch(folder: Path, prompts: list[list[int]]) -> Callable[[Sampling], Any]:
    """What the torch target answers, once for each way."""
    return cache(lambda way: engine_of(folder, "torch:cpu").generate(prompts[:6], way))


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("options", [{}, {"max_batch": 4, "max_batch_tokens": 6},
                                     {"speculation": Speculation(ngram=1, min_acceptance=0, max_sequences=32)}],
                         ids=str)
def test_texts_are_those_of_torch(folder: Path, on_torch: Callable[[Sampling], Any], prompts: list[list[int]],
                                  way: Sampling, options: dict[str, Any]) -> None:
    expected = on_torch(way)
    found = engine_of(folder, "native", **options).generate(prompts[:6], way)
    assert [[c.ids for c in some] for some in found] == [[c.ids for c in some] for some in expected]
    for some, others in zip(found, expected, strict=True):
        assert [c.logprob for c in some] == pytest.approx([c.logprob for c in others], abs=1e-3)


def test_the_sampler_is_the_reference(folder: Path) -> None:
    program: Any = load_program(folder, "native", pages=4)
    random = np.random.default_rng(0)
    rows = 400
    logits = random.normal(0, 3, (rows, 300)).astype(np.float32)
    logits[random.random(logits.shape) < 0.2] = -np.inf
    logits[7] = -np.inf
    logits[9, 3] = np.nan
    options = (random.choice([0.0, 0.5, 1.0, 1.7], rows).astype(np.float32),
               random.choice([0, 1, 7, 200, 400], rows).astype(np.int32),
               random.choice([0.3, 0.9, 1.0], rows).astype(np.float32),
               random.choice([0.0, 0.02, 0.5], rows).astype(np.float32), random.random(rows))
    ours, theirs = sample(logits, *options), program.sample(logits, *options)
    assert ours.ids[[7, 9]].tolist() == [-1, -1]
    assert np.mean(ours.ids == theirs[0]) > 0.99, "rounding may decide a draw in a thousand"
    same = (ours.ids == theirs[0]) & (ours.ids >= 0)
    assert np.abs(ours.logprobs[same] - theirs[1][same]).max() < 1e-4
    assert theirs[0][[7, 9]].tolist() == [-1, -1]
