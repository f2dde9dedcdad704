"""Guesses ahead: never another text, fewer steps where text repeats, and a pause where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import pytest
from fake_program import VOCAB, FakeProgram, fake_logits
from hypothesis import given
from hypothesis import strategies as st

from openautoglm.engine.engine import Engine
from openautoglm.engine.request import Decoding, Request
from openautoglm.engine.settings import EngineSettings, Speculation
from openautoglm.engine.speculate import Lookup

EAGER = Speculation(ngram=2, draft_tokens=4, min_acceptance=0, max_sequences=32)
OPTIONS = [{}, {"temperature": 1.0, "n": 3}, {"temperature": 0.8, "top_p": 0.7, "repetition_penalty": 1.2, "n": 2},
           {"frequency_penalty": 0.5}, {"temperature": 1.0, "top_k": 3, "min_tokens": 12, "n": 2}, {"logprobs": 2}]


def looping(history: Sequence[int]) -> Any:
    """The next of a cycle of seven, nearly always."""
    logits = fake_logits(history) * 0.3
    logits[5 + (history[-1] - 4) % 7] += 4.0
    return logits


def run(logits: Any, speculation: Speculation | None, decoding: Decoding, prompts: list[list[int]],
        **options: Any) -> tuple[Any, Engine]:
    engine = Engine(FakeProgram(logits=logits, **options), EngineSettings(speculation=speculation))
    return engine.generate(prompts, decoding), engine


def test_guesses_continue_the_last_place_where_the_text_stood() -> None:
    lookup = Lookup(Speculation(ngram=2, draft_tokens=3))
    assert lookup.draft([1, 2, 3, 9, 1, 2], 8) == [3, 9, 1]
    assert lookup.draft([1, 2, 3, 9, 1, 2, 4, 1, 2], 8) == [4, 1, 2]
    assert lookup.draft([1, 2, 3, 9, 1, 2, 4, 1, 2], 1) == [4]
    assert lookup.draft([1, 2, 3, 9, 1, 2, 4, 1, 2], 0) == []
    assert lookup.draft([1, 2, 3, 9, 1, 2, 4, 1, 2, 7], 8) == []


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 4))
def test_a_guess_is_what_followed_before(tokens: list[int], ngram: int) -> None:
    lookup, before = Lookup(Speculation(ngram=ngram, draft_tokens=5)), list[int]()
    for token in tokens:
        before.append(token)
        draft = lookup.draft(before, 5)
        places = [place for place in range(len(before) - ngram)
                  if before[place:place + ngram] == before[len(before) - ngram:]]
        if places:
            end = places[-1] + ngram
            assert draft == before[end:end + 5]
        else:
            assert draft == []


def test_a_sequence_whose_guesses_fail_pauses_longer_each_time() -> None:
    lookup = Lookup(Speculation(ngram=1, patience=4, min_acceptance=0.5, pause=10, draft_tokens=2))
    text = [1] * 100
    assert lookup.draft(text[:20], 2)
    lookup.judge(2, 0, 20)
    assert lookup.draft(text[:21], 2), "too few to judge by"
    lookup.judge(2, 1, 21)
    assert lookup.pauses == 1
    assert not lookup.draft(text[:30], 2)
    assert lookup.draft(text[:31], 2)
    lookup.judge(4, 0, 31)
    assert not lookup.draft(text[:50], 2)
    assert lookup.draft(text[:51], 2)
    lookup.judge(4, 4, 51)
    lookup.judge(4, 0, 52)
    assert lookup.draft(text[:62], 2), "success made the pause short again"
    assert (lookup.drafted, lookup.accepted, lookup.pauses) == (16, 5, 3)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("logits", [looping, lambda history: fake_logits(history, order=1)], ids=["loops", "repeats"])
def test_text_is_the_same_with_and_without(options: dict[str, Any], logits: Any) -> None:
    decoding = Decoding(max_new_tokens=25, ignore_stop=True, score=True, **options)
    prompts = [[5, 6, 7, 8, 9, 10, 11, 5, 6], [20, 21], [7] * 9]
    plain, without = run(logits, None, decoding, prompts)
    guessed, having = run(logits, EAGER, decoding, prompts)
    assert [[c.ids for c in found] for found in guessed] == [[c.ids for c in found] for found in plain]
    for one, other in zip(chain(*guessed), chain(*plain), strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
    assert having.stats.accepted > 0
    assert having.stats.steps <= without.stats.steps
    assert having.stats.generated_tokens == without.stats.generated_tokens


def test_text_that_repeats_takes_far_fewer_steps() -> None:
    decoding = Decoding(max_new_tokens=60, ignore_stop=True)
    _, without = run(looping, None, decoding, [[5, 6]])
    _, having = run(looping, EAGER, decoding, [[5, 6]])
    assert having.stats.steps < 0.5 * without.stats.steps


def test_text_that_does_not_repeat_is_soon_left_alone() -> None:
    def never(history: Sequence[int]) -> Any:  # comes by the same pairs, and goes on otherwise each time
        return np.eye(VOCAB, dtype=np.float32)[4 + (len(history) // 2 if len(history) % 2 else 1)]

    careful = Speculation(ngram=1, draft_tokens=4, min_acceptance=0.6, patience=8, pause=1000)
    _, engine = run(never, careful, Decoding(max_new_tokens=80, ignore_stop=True), [[5, 5]])
    assert 8 <= engine.stats.drafted <= 12


def test_a_stop_among_accepted_guesses_ends_the_answer() -> None:
    prompt = [10, 11, 12, 3, 20, 21, 10, 11]

    def copying(history: Sequence[int]) -> Any:
        known = {10: 11, 11: 12, 12: 3, 3: 20, 20: 21, 21: 10}
        return np.eye(VOCAB, dtype=np.float32)[known[history[-1]]]

    found, engine = run(copying, EAGER, Decoding(max_new_tokens=30, score=True), [prompt])
    assert found[0][0].ids == (12,)
    assert found[0][0].finished
    assert engine.stats.pages_held == 0
    limited, _ = run(copying, EAGER, Decoding(max_new_tokens=3, ignore_stop=True), [prompt])
    assert limited[0][0].ids == (12, 3, 20)


def test_draws_keep_their_distribution() -> None:
    shares = np.where(np.arange(VOCAB) == 5, 0.5, np.where(np.arange(VOCAB) == 6, 0.3, 0.2 / 48))
    engine = Engine(FakeProgram(logits=lambda _: np.log(shares, dtype=np.float32)),
                    EngineSettings(speculation=EAGER.model_copy(update={"ngram": 1}), max_batch=8))
    tickets = [engine.submit(Request([5] * 6, Decoding(max_new_tokens=7, temperature=1.0, seed=seed, ignore_stop=True)))
               for seed in range(400)]
    while not engine.idle:
        engine.step()
    answers = np.array([ticket.result()[0].ids for ticket in tickets])
    assert 100 < engine.stats.accepted < engine.stats.drafted - 100
    for place in range(7):
        assert np.mean(answers[:, place] == 5) == pytest.approx(0.5, abs=0.08)
        assert np.mean(answers[:, place] == 6) == pytest.approx(0.3, abs=0.08)


def test_guesses_take_only_pages_that_are_left() -> None:
    decoding = Decoding(max_new_tokens=24, ignore_stop=True)
    prompts = [[5, 6, 7, 8, 9, 10, 11, 5, 6]] * 3
    free, _ = run(looping, EAGER, decoding, prompts)
    tight, engine = run(looping, EAGER, decoding, prompts, pages=12, page_size=4)
    assert [found[0].ids for found in tight] == [found[0].ids for found in free]
    assert engine.stats.pages_held == 0


def test_many_sequences_are_not_guessed_for() -> None:
    shy = EAGER.model_copy(update={"max_sequences": 1})
    _, engine = run(looping, shy, Decoding(max_new_tokens=9, ignore_stop=True), [[5, 6, 7, 5, 6]] * 2)
    assert engine.stats.drafted == 0
    ticket = engine.submit(Request([5, 6, 7, 5, 6], Decoding(max_new_tokens=20, ignore_stop=True)))
    while not ticket.done:
        engine.step()
    assert engine.stats.drafted > 0
