"""Faults, cancellations and deadlines stay with the request that they concern."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from fake_program import STOP, VOCAB, FakeProgram, fake_logits, greedy_text
from numpy.typing import NDArray

from openautoglm.core.errors import GenerationError
from openautoglm.engine.engine import Engine
from openautoglm.engine.request import Decoding, Piece, Request
from openautoglm.engine.sampling import Sampling
from openautoglm.engine.sequence import Ticket
from openautoglm.engine.settings import EngineSettings, Speculation

POISON = 44
LONG = Decoding(max_new_tokens=20, ignore_stop=True)
STYLES = [LONG, LONG.model_copy(update={"score": True}), LONG.model_copy(update={"temperature": 1.0, "n": 2}),
          LONG.model_copy(update={"repetition_penalty": 1.2}), LONG.model_copy(update={"num_beams": 2})]


def poisoned(history: Sequence[int]) -> Any:
    """Not a number once a poisoned prompt has had three tokens more."""
    if history[0] == POISON and len(history) > 6:
        return np.full(VOCAB, np.nan, np.float32)
    return fake_logits(history)


def finish(engine: Engine) -> None:
    while not engine.idle:
        engine.turn()


def text(ticket: Ticket) -> list[int]:
    return list(ticket.result()[0].ids)


@pytest.mark.parametrize("decoding", STYLES, ids=str)
@pytest.mark.parametrize("speculation", [None, Speculation(ngram=1, min_acceptance=0)])
def test_logits_that_are_no_numbers_fail_their_request_only(decoding: Decoding, speculation: Any) -> None:
    engine = Engine(FakeProgram(logits=poisoned), EngineSettings(speculation=speculation))
    good = [engine.submit(Request([5, 6], LONG)), engine.submit(Request([8] * 9, LONG))]
    bad = engine.submit(Request([POISON] * 4, decoding))
    finish(engine)
    with pytest.raises(GenerationError, match="request 2: the model gave no finite logits"):
        bad.result()
    assert [text(ticket) for ticket in good] == [greedy_text([5, 6], 20, stops=()), greedy_text([8] * 9, 20, stops=())]
    assert (engine.stats.failed, engine.stats.finished, engine.stats.pages_held) == (1, 2, 0)


def test_a_step_that_fails_ends_the_requests_in_it_and_no_other() -> None:
    trouble: list[str] = []

    def stumble(_: int) -> None:
        if trouble:
            raise MemoryError(trouble.pop())

    decoding = Decoding(max_new_tokens=9, ignore_stop=True)
    engine = Engine(FakeProgram(before=stumble, max_wanted=2))
    hit = [engine.submit(Request([5 + i] * 3, decoding)) for i in range(2)]
    spared = engine.submit(Request([9] * 3, decoding))
    for _ in range(3):
        engine.step()
    trouble.append("no scratch")
    finish(engine)
    for ticket in hit:
        with pytest.raises(GenerationError, match="no scratch") as caught:
            ticket.result()
        assert isinstance(caught.value.__cause__, MemoryError)
    assert text(spared) == greedy_text([9] * 3, 9, stops=())
    assert (engine.stats.failed_steps, engine.stats.failed, engine.stats.pages_held) == (1, 2, 0)


def test_a_sampler_that_fails_ends_the_requests_it_was_for() -> None:
    class Sampling(FakeProgram):
        def sample(self, *_: Any) -> Any:
            raise ValueError("no such rows")

    engine = Engine(Sampling())
    bad = engine.submit(Request([5, 6], Decoding(temperature=1.0)))
    finish(engine)
    with pytest.raises(GenerationError, match="no such rows"):
        bad.result()
    good = engine.submit(Request([7, 8], LONG))
    finish(engine)
    assert text(good) == greedy_text([7, 8], 20, stops=())


class Even:
    """A grammar of even ids, `most` of them."""

    def __init__(self, most: int = 5, *, fault: str = "") -> None:
        self.taken: list[int] = []
        self._most, self._fault = most, fault

    def copy(self) -> Even:
        other = Even(self._most, fault=self._fault)
        other.taken = list(self.taken)
        return other

    def fill_mask(self, out: NDArray[np.uint32]) -> None:
        if self._fault == "mask" and len(self.taken) == 2:
            raise RuntimeError("lost its way")
        out[:] = 0 if self._fault == "nothing" else 0x55555555

    def advance(self, token: int) -> bool:
        if token % 2 or (self._fault == "refuses" and len(self.taken) == 2):
            return False
        self.taken.append(token)
        return True

    def rollback(self, n: int) -> None:
        del self.taken[len(self.taken) - n:]

    @property
    def finished(self) -> bool:
        return len(self.taken) == self._most


@pytest.mark.parametrize("decoding", [LONG, Decoding(temperature=1.0, n=3, ignore_stop=True)])
@pytest.mark.parametrize("speculation", [None, Speculation(ngram=1, min_acceptance=0)])
def test_a_grammar_guides_its_request_only(decoding: Decoding, speculation: Any) -> None:
    engine = Engine(FakeProgram(), EngineSettings(speculation=speculation))
    guided = engine.submit(Request([5, 6, 8, 6, 8], decoding, grammar=Even()))
    free = engine.submit(Request([7, 8], LONG))
    finish(engine)
    assert len(guided.result()) == decoding.n
    for answer in guided.result():
        assert len(answer.ids) == 5
        assert answer.finished
        assert all(token % 2 == 0 for token in answer.ids)
    assert text(free) == greedy_text([7, 8], 20, stops=())


@pytest.mark.parametrize(("fault", "message"), [("mask", "lost its way"), ("nothing", "allows no token"),
                                                ("refuses", "the grammar does not")])
def test_a_grammar_that_fails_fails_its_request_only(fault: str, message: str) -> None:
    engine = Engine(FakeProgram())
    bad = engine.submit(Request([5, 6], LONG, grammar=Even(fault=fault)))
    good = engine.submit(Request([7, 8], LONG))
    finish(engine)
    with pytest.raises(GenerationError, match=message):
        bad.result()
    assert text(good) == greedy_text([7, 8], 20, stops=())


class Choice(Even):
    """A grammar of texts, each ended by the stop id."""

    texts = ((8, 9), (8, 10, 11))

    def copy(self) -> Choice:
        other = Choice(fault=self._fault)
        other.taken = list(self.taken)
        return other

    def fill_mask(self, out: NDArray[np.uint32]) -> None:
        out[:] = 0
        for text in self.texts:
            whole = [*text, STOP]
            if whole[:len(self.taken)] == self.taken and len(self.taken) < len(whole):
                out[whole[len(self.taken)] // 32] |= np.uint32(1 << whole[len(self.taken)] % 32)

    def advance(self, token: int) -> bool:
        if self._fault and len(self.taken) == 1:
            raise RuntimeError("lost its way")
        if not any(text[:len(self.taken) + 1] == (*self.taken, token) for text in self.texts):
            return False
        self.taken.append(token)
        return True


def test_a_grammar_guides_beams() -> None:
    engine = Engine(FakeProgram())
    for width, count in ((2, 2), (4, 3)):
        found = engine.submit(Request([5, 6], Decoding(num_beams=width, n=count, max_new_tokens=9), grammar=Choice()))
        finish(engine)
        assert {candidate.ids for candidate in found.result() if candidate.finished} == set(Choice.texts)
        assert [candidate.ids for candidate in found.result()[2:]] == [()] * (count - 2), "there are only two texts"
    bad = engine.submit(Request([5, 6], Decoding(num_beams=2, max_new_tokens=9), grammar=Choice(fault="yes")))
    good = engine.submit(Request([7, 8], LONG))
    finish(engine)
    with pytest.raises(GenerationError, match="lost its way"):
        bad.result()
    assert text(good) == greedy_text([7, 8], 20, stops=())
    assert engine.stats.pages_held == 0


def test_a_watcher_ends_an_answer_and_one_that_fails_fails_it() -> None:
    engine = Engine(FakeProgram())
    expected = greedy_text([5, 6], 20, stops=())
    watched = engine.submit(Request([5, 6], LONG, watch=lambda: lambda token: token == expected[4]))
    broken = engine.submit(Request([5, 6], LONG, watch=lambda: lambda token: bool(1 // 0)))
    finish(engine)
    assert text(watched) == expected[:5]
    assert watched.result()[0].finished
    with pytest.raises(GenerationError, match="ZeroDivisionError"):
        broken.result()


def test_a_listener_that_fails_fails_its_request_only() -> None:
    def listen(piece: Piece) -> None:
        raise OSError("client gone")

    engine = Engine(FakeProgram())
    bad, good = engine.submit(Request([5, 6], LONG), listen), engine.submit(Request([7, 8], LONG))
    finish(engine)
    with pytest.raises(GenerationError, match="client gone"):
        bad.result()
    assert text(good) == greedy_text([7, 8], 20, stops=())


@pytest.mark.parametrize("decoding", STYLES, ids=str)
@pytest.mark.parametrize("steps", [0, 1, 2, 6])
def test_a_cancelled_request_frees_its_pages_at_once(decoding: Decoding, steps: int) -> None:
    engine = Engine(FakeProgram(max_rows=8, max_wanted=4))
    ticket = engine.submit(Request([5] * 11, decoding))
    for _ in range(steps):
        engine.step()
    engine.cancel(ticket)
    assert engine.idle
    assert engine.stats.pages_held == 0
    assert ticket.finishes == ["cancelled"] * decoding.n
    assert (engine.stats.cancelled, engine.stats.finished) == (1, 0)
    engine.cancel(ticket)
    assert engine.stats.cancelled == 1


def test_a_deadline_ends_an_answer_with_what_it_has() -> None:
    now = [0.0]
    engine = Engine(FakeProgram(max_wanted=1), clock=lambda: now[0])
    seen: list[Piece] = []
    timed = engine.submit(Request([5, 6], LONG, deadline=3.0), seen.append)
    behind = engine.submit(Request([7, 8], LONG, deadline=2.0))
    for moment in (0.0, 1.0, 2.0, 3.0):
        now[0] = moment
        engine.step()
    assert timed.finishes == behind.finishes == ["deadline"]
    assert text(timed) == greedy_text([5, 6], 3, stops=())
    assert not timed.result()[0].finished
    assert behind.result()[0].ids == ()
    assert seen[-1].finish == "deadline"
    assert engine.idle


def test_an_early_deadline_of_beams_gives_the_best_so_far() -> None:
    now = [0.0]
    engine = Engine(FakeProgram(), clock=lambda: now[0])
    ticket = engine.submit(Request([5, 6], LONG.model_copy(update={"num_beams": 3, "n": 2}), deadline=3.0))
    for moment in (0.0, 1.0, 2.0, 3.0):
        now[0] = moment
        engine.step()
    assert [len(candidate.ids) for candidate in ticket.result()] == [3, 3]
    assert engine.stats.pages_held == 0


@pytest.mark.parametrize(("options", "message"), [
    ({"decoding": Decoding(num_beams=40)}, "40 beams"), ({"decoding": Decoding(logit_bias=((99, 1.0),))}, "ids .99."),
    ({"decoding": Decoding(num_beams=2), "watch": lambda: lambda token: False}, "beams do not"),
    ({"decoding": Decoding(max_new_tokens=200), "prompt": [5] * 99}, "pages")],
    ids=["too many beams", "a foreign id", "beams watched", "too long"])
def test_what_does_not_fit_the_engine_is_refused(options: dict[str, Any], message: str) -> None:
    engine = Engine(FakeProgram(positions=400))
    with pytest.raises(GenerationError, match=f"request 0: .*{message}") as caught:
        engine.submit(Request(**{"prompt": [5], **options}))
    assert caught.value.remedy
    assert engine.idle


def test_a_broken_generation_leaves_nothing_behind() -> None:
    engine = Engine(FakeProgram(logits=poisoned))
    with pytest.raises(GenerationError, match="no finite logits"):
        engine.generate([[5] * 3, [POISON] * 4, [6] * 3], Sampling(max_new_tokens=40))
    assert engine.idle
    assert engine.stats.pages_held == 0


@pytest.mark.parametrize(("decoding", "grammar", "where"), [
    (Decoding(min_tokens=9, stop_ids=tuple(range(VOCAB))), None, "min_tokens"),
    (Decoding(min_tokens=9, stop_ids=(8,)), Choice(), "grammar"),
    (Decoding(min_tokens=9, stop_ids=tuple(range(VOCAB)), temperature=1.0, n=2), None, "min_tokens"),
], ids=["stop ids", "grammar", "drawn"])
def test_a_request_that_forbids_all_tokens_is_to_blame_itself(decoding: Decoding, grammar: Any, where: str) -> None:
    engine = Engine(FakeProgram())
    bad = engine.submit(Request([5, 6], decoding, grammar=grammar))
    good = engine.submit(Request([7, 8], LONG))
    finish(engine)
    with pytest.raises(GenerationError, match="no token to choose") as caught:
        bad.result()
    assert caught.value.where == where
    assert text(good) == greedy_text([7, 8], 20, stops=())
