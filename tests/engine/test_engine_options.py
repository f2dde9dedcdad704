"""Options of a request: what they do to its logits, its end, and what is reported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_program import STOP, VOCAB, FakeProgram, fake_logits, greedy_text
from pydantic import ValidationError

from openautoglm.engine.engine import Engine
from openautoglm.engine.penalties import Shaper
from openautoglm.engine.request import Decoding, Piece, Request
from openautoglm.engine.sampling import Sampling
from openautoglm.engine.settings import EngineSettings


def answer(prompt: list[int], **options: Any) -> list[int]:
    engine = Engine(FakeProgram())
    return list(engine.generate([prompt], Decoding(**{"max_new_tokens": 15, **options}))[0][0].ids)


@pytest.mark.parametrize("options", [{"num_beams": 4, "temperature": 1.0}, {"num_beams": 4, "n": 5}, {"n": 2},
                                     {"num_beams": 2, "logprobs": 1}, {"logit_bias": ((1, 1.0), (1, 2.0))},
                                     {"max_new_tokens": 0}, {"best": True}])
def test_options_that_do_not_fit_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Decoding(**options)
    with pytest.raises(ValidationError):
        EngineSettings(max_batch=9, max_batch_tokens=8)


def test_options_come_over_from_the_spines() -> None:
    made = Decoding.from_sampling(Sampling(temperature=0.7, top_k=5, n=3, seed=9, choose="consensus"), min_tokens=2)
    assert (made.temperature, made.top_k, made.n, made.seed, made.min_tokens, made.score) == (0.7, 5, 3, 9, 2, True)


def test_the_order_of_changes() -> None:
    shaper = Shaper([1, 2, 9], Decoding(repetition_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25,
                                        logit_bias=((5, 3.0), (1, -1.0)), min_tokens=3), frozenset([0, 77]), 8)
    for token in (2, 4, 4):
        assert shaper.push(token)
    row = np.array([1, 2, -2, 4, 6, 0, 1, 1], np.float32)
    shaper.apply(row)
    assert row.tolist() == [1, 2 / 2 - 1, -2 * 2 - 0.75, 4, 6 / 2 - 1.0, 3, 1, 1]
    shaper.pop([4])
    row = np.array([1, 2, -2, 4, 6, 0, 1, 1], np.float32)
    shaper.apply(row)
    assert row.tolist() == [-np.inf, 0, -4.75, 4, 2.25, 3, 1, 1], "two tokens are fewer than three: no stop yet"


def test_penalties_keep_from_repeating() -> None:
    plain = answer([5] * 4, max_new_tokens=60, ignore_stop=True)
    for options in ({"repetition_penalty": 10.0}, {"presence_penalty": 10.0}, {"frequency_penalty": 10.0}):
        tokens = answer([5] * 4, max_new_tokens=40, ignore_stop=True, **options)
        assert len(set(tokens)) == 40 > len(set(plain[:40]))


def test_a_bias_decides() -> None:
    assert answer([5, 6], logit_bias=((17, 100.0),)) == [17] * 15
    expected = greedy_text([5, 6], 1)[0]
    assert answer([5, 6], logit_bias=((expected, -100.0),))[0] != expected


def test_a_request_has_its_own_stops() -> None:
    whole = answer([5, 6], ignore_stop=True, max_new_tokens=30)
    assert answer([5, 6], stop_ids=(whole[6],))[:7] == whole[:whole.index(whole[6])]
    prompt = next([i, i + 1] for i in range(4, 40) if STOP in greedy_text([i, i + 1], 30, stops=()))
    free = answer(prompt, ignore_stop=True, max_new_tokens=30)
    assert free == greedy_text(prompt, 30, stops=())
    assert answer(prompt, max_new_tokens=30) == free[:free.index(STOP)]
    held = answer(prompt, max_new_tokens=30, min_tokens=free.index(STOP) + 1)
    assert len(held) > free.index(STOP)
    assert STOP not in held


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 4}, {"repetition_penalty": 3.0}])
def test_logprobs_are_those_of_the_model(options: dict[str, Any]) -> None:
    engine = Engine(FakeProgram())
    decoding = Decoding(max_new_tokens=9, logprobs=3, **options)
    pieces = list(engine.stream(Request([5, 6], decoding)))
    history = [5, 6]
    total = 0.0
    for piece in pieces:
        logits = fake_logits(history).astype(np.float64)
        logps = logits - np.log(np.exp(logits).sum())
        token = piece.ids[0] if piece.ids else STOP
        assert piece.logprobs == pytest.approx([logps[token]], abs=1e-5)
        best = np.argsort(-logps, kind="stable")[:3]
        assert [i for i, _ in piece.alternatives[0]] == best.tolist()
        assert [value for _, value in piece.alternatives[0]] == pytest.approx(logps[best].tolist(), abs=1e-5)
        history.append(token)
        total += piece.logprobs[0]
    found = engine.generate([[5, 6]], decoding)[0][0]
    assert found.logprob == pytest.approx(total, abs=1e-5)


def test_a_stream_gives_what_generate_gives() -> None:
    engine = Engine(FakeProgram())
    decoding = Decoding(max_new_tokens=12, temperature=1.0, n=3)
    texts: dict[int, list[int]] = {0: [], 1: [], 2: []}
    ends = {}
    for piece in engine.stream(Request([5, 6], decoding)):
        texts[piece.copy] += piece.ids
        if piece.finish:
            ends[piece.copy] = piece.finish
    expected = engine.generate([[5, 6]], decoding)[0]
    assert [tuple(texts[copy]) for copy in range(3)] == [candidate.ids for candidate in expected]
    assert [ends[copy] == "stop" for copy in range(3)] == [candidate.finished for candidate in expected]


def test_a_stream_that_is_left_is_cancelled() -> None:
    engine = Engine(FakeProgram())
    stream = engine.stream(Request([5, 6], Decoding(max_new_tokens=100, ignore_stop=True)))
    next(stream)
    assert not engine.idle
    stream.close()  # type: ignore[attr-defined]
    assert engine.idle
    assert engine.stats.cancelled == 1


def test_beams_are_streamed_when_they_have_ended() -> None:
    engine = Engine(FakeProgram())
    decoding = Decoding(max_new_tokens=6, num_beams=3, n=2)
    pieces: list[Piece] = list(engine.stream(Request([5, 6], decoding)))
    assert [piece.ids for piece in pieces] == [c.ids for c in engine.generate([[5, 6]], decoding)[0]]


def test_a_programs_own_sampler_is_used() -> None:
    class Sampling(FakeProgram):
        def sample(self, logits: Any, temperature: Any, top_k: Any, top_p: Any, min_p: Any, uniforms: Any) -> Any:
            assert (temperature > 0).all()
            assert ((uniforms >= 0) & (uniforms < 1)).all()
            return np.full(len(logits), VOCAB - 1, np.int32), np.full(len(logits), -0.5, np.float32)

    found = Engine(Sampling()).generate([[5]], Decoding(max_new_tokens=4, temperature=1.0, score=True))[0][0]
    assert found.ids == (VOCAB - 1,) * 4
    assert found.logprob == pytest.approx(-2.0)
