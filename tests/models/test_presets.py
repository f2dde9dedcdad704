"""Sizes by name, and by budget."""

from __future__ import annotations

import pytest

from openautoglm.core.errors import SpecError
from openautoglm.models.presets import (
    PARAMETERS_PER_TOKEN,
    PASSES,
    PRESETS,
    RELEASED,
    SCRATCH,
    auto_spec,
    preset,
)

FAST = 1e18


def test_sizes_grow_from_one_million_to_one_and_a_half_billion() -> None:
    sizes = [spec.parameters for spec in SCRATCH.values()]
    assert sizes == sorted(sizes)
    assert sizes[0] < 1.2e6
    assert 1.4e9 < sizes[-1] < 1.6e9
    assert set(PRESETS) == {*SCRATCH, *RELEASED}


def test_the_released_shapes_have_the_released_sizes() -> None:
    assert preset("glm-4-9b").parameters == 9_399_951_360
    assert preset("glm-4-0414").family == "glm4"
    assert preset("base").parameters == 30_745_088


def test_another_vocabulary_unsets_the_special_ids() -> None:
    spec = preset("glm-4-9b", vocab_size=1001)
    assert (spec.vocab_size, spec.pad_id, spec.eos_ids) == (1008, None, ())


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean 'small'"):
        preset("smal")


def test_data_bounds_the_size() -> None:
    small, large = (auto_spec(tokens, minutes=60, flops_per_s=FAST) for tokens in (100_000, 100_000_000))
    assert small.name == "micro"
    assert large.name == "medium"
    assert large.spec.body_parameters <= PARAMETERS_PER_TOKEN * 100_000_000
    assert "too large for 100,000 training tokens" in small.reason


def test_minutes_bound_the_size() -> None:
    quick, slow = (auto_spec(8_000_000, minutes=minutes, flops_per_s=160e9) for minutes in (3, 90))
    assert (quick.name, slow.name) == ("micro", "tiny")
    assert slow.passes >= PASSES
    assert "small reaches" in slow.reason


def test_parameters_and_memory_bound_the_size() -> None:
    assert auto_spec(10**9, minutes=60, flops_per_s=FAST, parameters_max=4_000_000).name == "tiny"
    room = preset("small").training_memory_bytes(4096)
    assert auto_spec(10**9, minutes=60, flops_per_s=FAST, memory_bytes=room).name == "small"
    assert auto_spec(10**12, minutes=600, flops_per_s=FAST).name == "huge"
    with pytest.raises(SpecError, match="micro"):
        auto_spec(10**9, minutes=60, flops_per_s=FAST, parameters_max=1000)


def test_the_tokenizers_size_counts() -> None:
    chosen = auto_spec(10**7, minutes=60, flops_per_s=FAST, vocab_size=5001)
    assert chosen.spec.vocab_size == 5008
