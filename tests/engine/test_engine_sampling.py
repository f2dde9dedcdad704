"""Draws of the numpy reference: the rule itself, and the same as the torch reference where they share it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openautoglm.engine import pick
from openautoglm.engine.sample import Drawn, Uniforms, likeliest, logprob, sample
from openautoglm.engine.sampling import Sampling

LOGITS = np.log(np.array([0.15, 0.5, 0.05, 0.2, 0.1], np.float32))


def draw(logits: Any, uniforms: Any, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0,
         min_p: float = 0.0) -> Drawn:
    rows = np.atleast_2d(np.asarray(logits, np.float32))
    count = len(rows)
    return sample(rows, np.full(count, temperature, np.float32), np.full(count, top_k, np.int32),
                  np.full(count, top_p, np.float32), np.full(count, min_p, np.float32),
                  np.broadcast_to(np.asarray(uniforms, np.float64), count))


def plain_rule(logits: Any, uniform: float, temperature: float, top_k: int, top_p: float, min_p: float) -> int:
    """The rule word by word, slowly."""
    scaled = np.asarray(logits, np.float64) / temperature
    chances = np.exp(scaled - scaled.max())
    order = sorted(range(len(chances)), key=lambda i: (-scaled[i], i))[:top_k or None]
    total = sum(chances[i] for i in order)
    shares = {i: chances[i] / total for i in order}
    kept, reached = [], 0.0
    for i in order:
        kept.append(i)
        reached += shares[i]
        if reached >= top_p:
            break
    kept = sorted(i for i in kept if shares[i] >= min_p * shares[order[0]])
    total, reached = sum(shares[i] for i in kept), 0.0
    for i in kept:
        reached += shares[i]
        if reached > uniform * total:
            return i
    return kept[-1]


@pytest.mark.parametrize(("options", "expected"), [
    ({}, [0.15, 0.5, 0.05, 0.2, 0.1]),
    ({"top_k": 2}, [0, 5 / 7, 0, 2 / 7, 0]),
    ({"top_p": 0.6}, [0, 5 / 7, 0, 2 / 7, 0]),
    ({"top_p": 0.45}, [0, 1, 0, 0, 0]),
    ({"min_p": 0.25}, [0.15 / 0.85, 0.5 / 0.85, 0, 0.2 / 0.85, 0]),
    ({"top_k": 3, "top_p": 0.7}, [0, 5 / 7, 0, 2 / 7, 0]),
    ({"temperature": 0.5}, [0.0225 / 0.325, 0.25 / 0.325, 0.0025 / 0.325, 0.04 / 0.325, 0.01 / 0.325])])
def test_draws_follow_the_filtered_distribution(options: dict[str, Any], expected: list[float]) -> None:
    uniforms = (np.arange(2000) + 0.5) / 2000
    drawn = draw(np.tile(LOGITS, (2000, 1)), uniforms, **options)
    assert (np.bincount(drawn.ids, minlength=5) / 2000).tolist() == pytest.approx(expected, abs=0.002)
    assert (np.diff(drawn.ids) >= 0).all(), "in the order of ids"
    assert drawn.logprobs.tolist() == pytest.approx(LOGITS[drawn.ids].tolist(), abs=1e-5)


@given(st.lists(st.sampled_from([-1.5, 0.0, 0.25, 1.0, 3.0]), min_size=1, max_size=12),
       st.floats(0, 1, exclude_max=True), st.sampled_from([0.3, 1.0, 2.0]), st.integers(0, 13),
       st.sampled_from([0.1, 0.55, 0.83, 1.0]), st.sampled_from([0.0, 0.07, 0.6, 1.0]))
def test_draws_are_those_of_the_rule(logits: list[float], uniform: float, temperature: float, top_k: int,
                                     top_p: float, min_p: float) -> None:
    # the rule is computed in fp64 with the options as they arrive, in fp32
    options = [float(np.float32(option)) for option in (temperature, top_p, min_p)]
    expected = plain_rule(logits, uniform, options[0], top_k, options[1], options[2])
    got = int(draw(logits, uniform, temperature, top_k, top_p, min_p).ids[0])
    if got != expected:  # sums of shares in another order may fall on the other side of a bound
        nearby = {plain_rule(logits, min(max(uniform + u, 0), 0.999999), options[0], top_k, options[1] + p,
                             options[2] * (1 + m)) for u in (-1e-9, 0, 1e-9) for p in (-1e-9, 0, 1e-9)
                  for m in (-1e-9, 0, 1e-9)}
        assert got in nearby


def test_what_is_masked_is_never_drawn_and_a_bad_row_is_named() -> None:
    masked = np.where(np.arange(5) == 1, -np.inf, LOGITS)
    rows = np.stack([masked, np.full(5, -np.inf), np.full(5, np.nan), masked])
    for uniform in (0.0, 0.5, 1 - 2**-53):
        drawn = draw(rows, uniform)
        assert drawn.ids[1:3].tolist() == [-1, -1]
        assert 1 not in drawn.ids
        assert np.isfinite(drawn.logprobs[[0, 3]]).all()


def test_temperature_zero_takes_the_lowest_of_the_largest() -> None:
    drawn = draw([[0.0, 2.0, 2.0], [1.0, 0.0, 1.0]], 0.9, temperature=0.0)
    assert drawn.ids.tolist() == [1, 0]


def test_alternatives_are_ordered_and_normalised() -> None:
    assert [i for i, _ in likeliest(LOGITS, 3)] == [1, 3, 0]
    assert np.exp([value for _, value in likeliest(LOGITS * 1, 9)]).sum() == pytest.approx(1, abs=1e-5)
    assert likeliest(LOGITS, 0) == ()
    assert [i for i, _ in likeliest(np.array([1, 2, 2, 2, 0], np.float32), 2)] == [1, 2]
    assert logprob(LOGITS + 3, 1) == pytest.approx(np.log(0.5), abs=1e-5)


@given(st.lists(st.integers(0, 10**6), max_size=5), st.integers(0, 2**40), st.integers(0, 99))
def test_random_numbers_are_those_of_the_torch_reference(prompt: list[int], seed: int, copy: int) -> None:
    numbers = Uniforms(prompt, seed, copy)
    expected = pick.uniforms(prompt, seed, copy, 200).tolist()
    assert [numbers[place] for place in (0, 1, 63, 64, 199, 2)] == [expected[i] for i in (0, 1, 63, 64, 199, 2)]


@given(st.integers(0, 2**32), st.sampled_from([{}, {"temperature": 0.7}, {"min_p": 0.1}]))
def test_unsorted_draws_are_those_of_the_torch_reference(seed: int, options: dict[str, float]) -> None:
    random = np.random.default_rng(seed)
    logits, uniforms = random.normal(0, 2, (4, 30)).astype(np.float32), random.random(4)
    theirs = pick.draw(torch.from_numpy(logits), torch.from_numpy(uniforms), Sampling(temperature=1.0).model_copy(
        update=options))
    assert draw(logits, uniforms, **{"temperature": 1.0, **options}).ids.tolist() == theirs.tolist()
