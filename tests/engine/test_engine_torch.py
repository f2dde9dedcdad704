"""The engine on the torch target against transformers' classes: the same greedy texts, beams and draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from openautoglm.engine.engine import Engine
from openautoglm.engine.generate import Candidate
from openautoglm.engine.request import Decoding, Request
from openautoglm.engine.sampling import Sampling
from openautoglm.engine.settings import EngineSettings, Speculation
from openautoglm.engine.transformers_generator import TransformersGenerator
from openautoglm.runtime.load import load_program

STOP = 3
WAYS = [
    Sampling(max_new_tokens=16), Sampling(max_new_tokens=16, repetition_penalty=1.5),
    Sampling(max_new_tokens=12, num_beams=4, n=4), Sampling(max_new_tokens=12, num_beams=3, n=2, early_stop=True),
    Sampling(max_new_tokens=12, num_beams=4, n=4, length_penalty=0.0),
    Sampling(max_new_tokens=12, num_beams=4, n=2, length_penalty=2.0, repetition_penalty=1.3),
    Sampling(max_new_tokens=8, num_beams=16, n=16), Sampling(max_new_tokens=12, temperature=1.0, n=3, seed=5),
    Sampling(max_new_tokens=12, temperature=0.8, min_p=0.05, n=2, seed=1, repetition_penalty=1.2)]


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("engine")
    model.save_pretrained(made)
    return made


def engine_of(folder: Path, vocab_size: int | None = None, *, pages: int = 400, max_rows: int = 64,
              max_wanted: int = 32, **settings: Any) -> Engine:
    program = load_program(folder, "torch:cpu", cache="fp32", pages=pages, page_size=4, max_rows=max_rows,
                           max_wanted=max_wanted)
    return Engine(program, EngineSettings(**settings), vocab_size=vocab_size)


def ids(results: Sequence[Sequence[Candidate]]) -> list[list[tuple[int, ...]]]:
    return [[candidate.ids for candidate in candidates] for candidates in results]


@pytest.mark.parametrize("vocab_size", [None, 20])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_answers_are_those_of_the_training_side(model: Any, folder: Path, prompts: list[list[int]], way: Sampling,
                                                vocab_size: int | None) -> None:
    theirs = TransformersGenerator(model, stop_ids=(STOP,), vocab_size=vocab_size).generate(prompts, way)
    ours = engine_of(folder, vocab_size).generate(prompts, way)
    assert ids(ours) == ids(theirs)
    for one, other in zip(chain(*ours), chain(*theirs), strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
        assert one.finished == other.finished


@pytest.fixture(scope="module")
def usual(folder: Path, prompts: list[list[int]]) -> Callable[[Sampling], Any]:
    """What steps of the usual shape answer, once for each way."""
    return cache(lambda way: ids(engine_of(folder).generate(prompts[:6], way)))


@pytest.mark.parametrize("way", [WAYS[0], WAYS[2], WAYS[7]], ids=str)
@pytest.mark.parametrize("options", [
    {"max_rows": 5, "max_wanted": 4}, {"pages": 36}, {"prefix_cache": False},
    {"speculation": Speculation(ngram=1, min_acceptance=0, max_sequences=32)}], ids=str)
def test_steps_of_any_shape_give_the_same_answers(folder: Path, usual: Callable[[Sampling], Any],
                                                  prompts: list[list[int]], way: Sampling,
                                                  options: dict[str, Any]) -> None:
    prompts, expected = prompts[:6], usual(way)
    engine = engine_of(folder, **options)
    assert ids(engine.generate(prompts, way)) == expected
    assert ids(engine.generate(prompts[::-1], way)) == expected[::-1], "with the cache warm"
    if "pages" in options and way.temperature:
        assert engine.stats.preemptions > 0
    if "speculation" in options and way.num_beams == 1:
        assert engine.stats.drafted > 0


def test_a_conversation_finds_its_past_in_the_cache(folder: Path) -> None:
    engine = engine_of(folder)
    decoding = Decoding(max_new_tokens=8, ignore_stop=True)
    first = engine.generate([[5, 6, 7, 8, 9]], decoding)[0][0].ids
    turn = [5, 6, 7, 8, 9, *first, 11, 12]
    ticket = engine.submit(Request(turn, decoding))
    while not ticket.done:
        engine.step()
    assert engine.stats.prefix_hit_rate == pytest.approx(12 / (5 + 15))
    assert ticket.result()[0].ids == engine_of(folder).generate([turn], decoding)[0][0].ids
