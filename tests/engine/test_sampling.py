"""Options that fit together, and draws that follow the distribution."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from openautoglm.engine.pick import draw, penalise, uniforms
from openautoglm.engine.sampling import Sampling

LOGITS = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05]).log()


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 4, "temperature": 1.0},
        {"num_beams": 4, "n": 5},
        {"n": 2},
        {"max_new_tokens": 0},
        {"top_p": 0.0},
        {"temperature": float("nan")},
        {"choose": "best"},
        {"beams": 4},
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Sampling(**options)


def shares(**options: Any) -> list[float]:
    settings = Sampling(**{"temperature": 1.0, **options})
    drawn = draw(LOGITS.expand(20_000, -1), uniforms([1], 0, 0, 20_000), settings)
    return (torch.bincount(drawn, minlength=5) / 20_000).tolist()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.5, 0.2, 0.15, 0.1, 0.05]),
        ({"top_k": 2}, [5 / 7, 2 / 7, 0, 0, 0]),
        ({"top_p": 0.6}, [5 / 7, 2 / 7, 0, 0, 0]),
        ({"top_p": 0.5}, [1, 0, 0, 0, 0]),
        ({"min_p": 0.25}, [0.5 / 0.85, 0.2 / 0.85, 0.15 / 0.85, 0, 0]),
        ({"top_k": 3, "top_p": 0.7}, [5 / 7, 2 / 7, 0, 0, 0]),
        ({"temperature": 0.5}, [0.25 / 0.325, 0.04 / 0.325, 0.0225 / 0.325, 0.01 / 0.325, 0.0025 / 0.325]),
    ],
)
def test_draws_follow_the_filtered_distribution(options: dict[str, Any], expected: list[float]) -> None:
    assert shares(**options) == pytest.approx(expected, abs=0.015)


@given(st.lists(st.integers(0, 10**6)), st.integers(0, 2**40), st.integers(0, 99))
def test_random_numbers_depend_on_prompt_seed_and_copy(prompt: list[int], seed: int, copy: int) -> None:
    numbers = uniforms(prompt, seed, copy, 4)
    assert torch.equal(numbers, uniforms(prompt, seed, copy, 9)[:4])
    assert bool(((numbers >= 0) & (numbers < 1)).all())
    for other in (
        uniforms([*prompt, 0], seed, copy, 4),
        uniforms(prompt, seed + 1, copy, 4),
        uniforms(prompt, seed, copy + 1, 4),
    ):
        assert not torch.equal(numbers, other)


def test_a_penalty_makes_seen_logits_smaller() -> None:
    logits = torch.tensor([[2.0, -2.0, 2.0]])
    seen = torch.tensor([[True, True, False]])
    assert penalise(logits, seen, 2.0).tolist() == [[1.0, -4.0, 2.0]]
