"""The engine on a program that reads its history back from the cache: the same text, whatever happens around it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from fake_program import STOP, VOCAB, FakeProgram, fake_logits, greedy_text
from hypothesis import given, settings
from hypothesis import strategies as st

from openautoglm.core.errors import GenerationError, ResourceError
from openautoglm.engine.engine import Engine
from openautoglm.engine.generate import Candidate, Generator
from openautoglm.engine.request import Decoding, Request
from openautoglm.engine.sampling import Sampling
from openautoglm.engine.settings import EngineSettings, Speculation

GREEDY = Sampling(max_new_tokens=12)
DRAWN = Sampling(max_new_tokens=12, temperature=1.0, top_p=0.9, n=3, seed=5)
BEAMS = Sampling(max_new_tokens=10, num_beams=4, n=3)
PENALISED = Sampling(max_new_tokens=12, temperature=1.0, repetition_penalty=1.4, n=2)
WAYS = [GREEDY, DRAWN, BEAMS, PENALISED, Sampling(max_new_tokens=10, num_beams=3, n=2, repetition_penalty=1.4)]


def vague(history: Sequence[int]) -> Any:
    """Logits near one another, so that beams and draws differ, repeating what the last tokens made them."""
    return fake_logits(history, order=2) * 0.5


def prompts_of(seed: int, count: int) -> list[list[int]]:
    dice = random.Random(seed)
    made = [[dice.randrange(4, VOCAB) for _ in range(dice.randrange(1, 26))] for _ in range(count)]
    return [*made, made[0] + [5, 6], made[0] + [5, 7, 8]]


def ids(results: Sequence[Sequence[Candidate]]) -> list[list[tuple[int, ...]]]:
    return [[candidate.ids for candidate in candidates] for candidates in results]


def flat(results: Sequence[Sequence[Candidate]]) -> list[Candidate]:
    return list(itertools.chain.from_iterable(results))


def make(**options: Any) -> tuple[Engine, FakeProgram]:
    of_engine = {name: options.pop(name) for name in list(options) if name in EngineSettings.model_fields}
    program = FakeProgram(**options)
    return Engine(program, EngineSettings(**of_engine)), program


def test_greedy_text_is_that_of_one_sequence_alone() -> None:
    engine, program = make(logits=fake_logits)
    prompts = prompts_of(0, 30)
    results: list[list[Candidate]] = engine.generate(prompts, GREEDY)
    assert [list(found[0].ids) for found in results] == [greedy_text(prompt, 12) for prompt in prompts]
    assert {candidate.finished for candidate in flat(results)} == {True, False}
    assert max(len(batch) for batch in program.batches) > 8, "many went together"
    assert engine.idle
    assert engine.stats.pages_held == 0


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("options", [
    {"pages": 60}, {"pages": 48, "max_rows": 33}, {"max_wanted": 4, "max_rows": 5}, {"page_size": 1, "pages": 300},
    {"page_size": 16}, {"prefix_cache": False, "pages": 52}, {"speculation": Speculation(ngram=1, min_acceptance=0)},
    {"speculation": Speculation(ngram=2, max_sequences=32, draft_tokens=9), "pages": 50}], ids=str)
def test_nothing_around_a_prompt_changes_its_text(way: Sampling, options: dict[str, Any]) -> None:
    prompts = prompts_of(1, 9)
    alone = [make(logits=vague, pages=200)[0].generate([prompt], way)[0] for prompt in prompts]
    engine, _ = make(logits=vague, **options)
    together = engine.generate(prompts, way)
    assert ids(together) == ids(alone)
    assert [c.logprob for c in flat(together)] == pytest.approx([c.logprob for c in flat(alone)], abs=1e-3)
    assert [c.finished for c in flat(together)] == [c.finished for c in flat(alone)]
    assert engine.stats.pages_held == 0
    again = engine.generate(prompts[::-1], way)
    assert ids(again) == ids(alone)[::-1], "the cache is warm now"


def test_the_ways_above_meet_what_they_are_about() -> None:
    tight, _ = make(logits=vague, pages=48)
    tight.generate(prompts_of(1, 9), DRAWN)
    assert tight.stats.preemptions > 3
    assert tight.stats.evictions > 3
    warm, program = make(logits=vague)
    warm.generate(prompts_of(1, 9), BEAMS)
    assert program.copied > 20
    guessing, _ = make(logits=vague, speculation=Speculation(ngram=1, min_acceptance=0, max_sequences=32))
    guessing.generate(prompts_of(1, 9), DRAWN)
    assert 0 < guessing.stats.accepted < guessing.stats.drafted


@settings(max_examples=25)
@given(st.data())
def test_any_mixture_of_requests_gives_what_each_gives_alone(data: st.DataObject) -> None:
    pages = data.draw(st.integers(40, 90))
    speculation = data.draw(st.sampled_from([None, Speculation(ngram=1, min_acceptance=0.2, patience=4, pause=3)]))
    engine, _ = make(logits=vague, pages=pages, max_rows=data.draw(st.integers(4, 40)), max_wanted=4,
                     speculation=speculation)
    pool, tickets, expected, cancelled = prompts_of(2, 6), [], [], []
    for _ in range(data.draw(st.integers(1, 10))):
        way = data.draw(st.sampled_from(WAYS))
        decoding = Decoding.from_sampling(way, logprobs=None)
        prompt = data.draw(st.sampled_from(pool))
        tickets.append(engine.submit(Request(prompt, decoding, priority=data.draw(st.integers(-2, 2)))))
        expected.append(make(logits=vague)[0].generate([prompt], way)[0])
        for _ in range(data.draw(st.integers(0, 5))):
            engine.step()
        if data.draw(st.integers(0, 5)) == 0:
            cancelled.append(data.draw(st.sampled_from(tickets)))
            engine.cancel(cancelled[-1])
    while not engine.idle:
        engine.turn()
    for ticket, candidates in zip(tickets, expected, strict=True):
        if ticket not in cancelled:
            assert [c.ids for c in ticket.result()] == [c.ids for c in candidates]
    assert engine.stats.pages_held == 0


def test_copies_beyond_the_slots_wait_their_turn() -> None:
    way = DRAWN.model_copy(update={"n": 9})
    few, _ = make(logits=vague, max_wanted=4)
    many, _ = make(logits=vague, max_wanted=32)
    assert ids(few.generate(prompts_of(3, 3), way)) == ids(many.generate(prompts_of(3, 3), way))


def test_a_seed_repeats_and_another_does_not() -> None:
    engine, _ = make(logits=vague)
    first = ids(engine.generate(prompts_of(4, 5), DRAWN))
    assert first == ids(engine.generate(prompts_of(4, 5), DRAWN))
    assert first != ids(engine.generate(prompts_of(4, 5), DRAWN.model_copy(update={"seed": 6})))
    assert any(len(set(candidates)) > 1 for candidates in first)


def test_the_last_position_ends_an_answer() -> None:
    def other(history: Sequence[int]) -> Any:
        return np.where(np.arange(VOCAB) == STOP, -9.0, fake_logits(history)).astype(np.float32)

    for way in (GREEDY, BEAMS):
        engine, _ = make(positions=32, logits=other)
        near, far = engine.generate([[7] * 29, [7] * 5], way)
        assert [(len(c.ids), c.finished) for c in near] == [(3, False)] * way.n
        assert len(far[0].ids) == way.max_new_tokens


def test_ids_past_the_tokenizer_are_never_written() -> None:
    program = FakeProgram(logits=vague)
    engine = Engine(program, vocab_size=20)
    for way in WAYS:
        written = {i for candidate in flat(engine.generate(prompts_of(5, 6), way)) for i in candidate.ids}
        assert written
        assert max(written) < 20


@pytest.mark.parametrize(("prompt", "reason"), [([], "empty"), ([VOCAB], "outside"), ([-1], "outside"),
                                                ([7] * 128, "128 positions"), ([7] * 120, "pages")])
def test_a_prompt_that_cannot_be_served_is_named(prompt: list[int], reason: str) -> None:
    engine, _ = make(pages=20)
    with pytest.raises(GenerationError, match=f"prompt 1.*{reason}") as caught:
        engine.generate([[7], prompt], Sampling(max_new_tokens=8))
    assert caught.value.remedy
    assert engine.idle


def test_nothing_gives_nothing_and_the_interface_is_kept() -> None:
    engine: Generator = make()[0]
    assert engine.generate([], GREEDY) == []


def test_more_prompts_than_the_queue_takes_are_fed_bit_by_bit() -> None:
    engine, _ = make(max_waiting=2, max_batch=2)
    prompts = prompts_of(6, 12)
    assert [list(c[0].ids) for c in engine.generate(prompts, GREEDY)] == [greedy_text(p, 12) for p in prompts]
    tickets = [engine.submit(Request(prompts[0])) for _ in range(2)]
    with pytest.raises(ResourceError, match="2 requests are waiting"):
        engine.submit(Request(prompts[1]))
    assert not any(ticket.done for ticket in tickets)


@pytest.mark.parametrize("settings", [EngineSettings(max_batch=33), EngineSettings(max_batch_tokens=65)])
def test_settings_beyond_the_program_are_refused(settings: EngineSettings) -> None:
    with pytest.raises(ResourceError, match="do not fit"):
        Engine(FakeProgram(), settings)


def test_a_long_prompt_does_not_stall_the_others() -> None:
    engine, program = make(max_rows=8, max_wanted=4, logits=lambda h: np.eye(VOCAB, dtype=np.float32)[9])
    first = engine.submit(Request([5], Decoding(max_new_tokens=30)))
    engine.step()
    engine.submit(Request([6] * 60, Decoding(max_new_tokens=2)))
    for _ in range(8):
        engine.step()
    assert program.batches[1:9] == [[1, 7]] * 8
    assert len(first.sequences[0].tokens) == 10


def test_a_shared_beginning_is_computed_once() -> None:
    engine, program = make(max_batch_tokens=64)
    common = [11, 12, 13, 14] * 5
    engine.generate([[*common, 20 + i] for i in range(6)], Sampling(max_new_tokens=2))
    computed = sum(count for batch in program.batches for count in batch)
    assert computed <= 21 + 5 + 6
    assert engine.stats.prefix_hit_rate == pytest.approx(5 * 20 / (6 * 21))


def test_pages_are_not_shared_across_salts() -> None:
    engine, _ = make()
    for salt in (b"one", b"other"):
        engine.submit(Request([7] * 20, Decoding(max_new_tokens=2), salt=salt))
        while not engine.idle:
            engine.step()
    assert engine.stats.prefix_hit_rate == 0


def test_statistics_count() -> None:
    clock = itertools.count()
    program = FakeProgram(logits=lambda h: np.eye(VOCAB, dtype=np.float32)[9])
    engine = Engine(program, clock=lambda: float(next(clock)))
    engine.generate([[5] * 6, [6] * 4], Sampling(max_new_tokens=3))
    stats = engine.stats
    assert (stats.requests, stats.finished, stats.failed, stats.cancelled) == (2, 2, 0, 0)
    assert (stats.prompt_tokens, stats.generated_tokens, stats.steps) == (10, 6, 3)
    assert stats.ttft_s is not None
    assert stats.ttft_s > 0
    assert stats.tokens_per_second == stats.generated_tokens / stats.step_seconds
    assert (stats.waiting, stats.filling, stats.decoding) == (0, 0, 0)
