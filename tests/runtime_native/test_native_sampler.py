"""Native sampling gives what the numpy reference gives, row by row, on every instruction path."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from openautoglm.engine.sample import sample as sample_reference
from openautoglm.runtime import native

Float32 = NDArray[np.float32]


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """The extension."""
    found = native.native_module()
    if found is None:
        pytest.skip(native.why_not())
    return found


def sample(module: ModuleType, logits: Float32, temperature: float | Float32 = 1, top_k: int = 0, top_p: float = 1,
           min_p: float = 0, uniforms: NDArray[np.float64] | float = 0.5, isa: str = "", threads: int = 2
           ) -> tuple[NDArray[np.int32], Float32]:
    """Ids and their log-probabilities, natively."""
    rows = len(logits)
    ids, logprobs = np.full(rows, -7, np.int32), np.empty(rows, np.float32)
    settings = ((temperature, np.float32), (top_k, np.int32), (top_p, np.float32), (min_p, np.float32),
                (uniforms, np.float64))
    fill = [np.full(rows, value, kind) for value, kind in settings]
    module.Team(threads, isa).sample(logits, *fill, ids, logprobs)
    return ids, logprobs


def logits_of(*values: float) -> Float32:
    """One row."""
    return np.array([values], np.float32)


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
@pytest.mark.parametrize("vocabulary", [1, 2, 50, 65, 1000, 20011])
def test_random_rows_are_as_the_reference(module: ModuleType, isa: str, vocabulary: int) -> None:
    if isa not in module.supported_isas():
        pytest.skip(f"this processor cannot run {isa}")
    rng = np.random.default_rng(vocabulary)
    for spread in (0.3, 3, 12):
        logits = (spread * rng.normal(size=(24, vocabulary))).astype(np.float32)
        logits[:, 1:][rng.random((24, vocabulary - 1)) < 0.1] = -np.inf
        settings = (rng.choice([0, 0.4, 1, 1.6], 24).astype(np.float32), rng.choice([0, 1, 4, 50], 24).astype(np.int32),
                    rng.choice([1, 0.95, 0.5, 0.02], 24).astype(np.float32),
                    rng.choice([0, 0.02, 0.4], 24).astype(np.float32), rng.random(24))
        ids, logprobs = np.empty(24, np.int32), np.empty(24, np.float32)
        module.Team(2, isa).sample(logits, *settings, ids, logprobs)
        expected = sample_reference(logits, *settings)
        np.testing.assert_array_equal(ids, expected.ids)
        np.testing.assert_allclose(logprobs, expected.logprobs, rtol=1e-5, atol=1e-5)


def test_greedy_takes_the_lowest_of_equals(module: ModuleType) -> None:
    ids, logprobs = sample(module, np.array([[1, 3, 3, 2], [5, 5, 5, 5]], np.float32), temperature=0)
    assert ids.tolist() == [1, 0]
    np.testing.assert_allclose(logprobs[1], np.log(0.25), rtol=1e-6)


@pytest.mark.parametrize(("settings", "kept"), [
    ({"top_k": 3}, [1, 2, 3]), ({"top_k": 1}, [1]), ({"top_p": 0.29}, [1, 2]), ({"top_p": 0.01}, [1]),
    ({"top_k": 5, "top_p": 0.5}, [1, 2, 3]), ({"min_p": 0.9}, [1, 2, 3, 4, 5, 6]), ({}, list(range(1, 9))),
])
def test_among_equals_lower_ids_stay(module: ModuleType, settings: dict[str, float], kept: list[int]) -> None:
    row = np.full(12, -np.inf, np.float32)
    row[1:7], row[7:9] = 2, 1  # six alike, two smaller
    uniforms = np.arange(200) / 200
    ids, _ = sample(module, np.tile(row, (200, 1)), uniforms=uniforms, **settings)  # type: ignore[arg-type]
    assert sorted(set(ids.tolist())) == kept
    assert (np.diff(ids) >= 0).all()  # in the order of ids


def test_shares_are_drawn_in_proportion(module: ModuleType) -> None:
    shares = np.array([0.1, 0.2, 0.3, 0.4])
    rows = np.tile(np.log(shares).astype(np.float32), (1000, 1))
    ids, logprobs = sample(module, rows, uniforms=(np.arange(1000) + 0.5) / 1000)
    np.testing.assert_allclose(np.bincount(ids) / 1000, shares, atol=0.002)
    np.testing.assert_allclose(logprobs, np.log(shares)[ids], rtol=1e-5)


def test_the_log_probability_knows_no_filters_and_no_temperature(module: ModuleType) -> None:
    row = logits_of(0.5, 2, -1, 1)
    exact = row[0] - np.log(np.exp(row[0]).sum())
    for temperature, top_k in ((0, 0), (0.1, 1), (5, 2)):
        ids, logprobs = sample(module, row, temperature, top_k)
        np.testing.assert_allclose(logprobs, exact[ids], rtol=1e-5)


def test_a_row_without_a_finite_maximum_is_that_rows_fault(module: ModuleType) -> None:
    rows = np.array([[1, 2], [-np.inf, -np.inf], [np.nan, 1], [1, np.nan], [np.inf, 1], [3, -np.inf]], np.float32)
    for temperature in (0.0, 1.0):
        for isa in module.supported_isas():
            ids, logprobs = sample(module, rows, temperature, uniforms=0.99, isa=isa)
            assert ids.tolist() == [1, -1, -1, -1, -1, 0]
            assert np.isneginf(logprobs[1:5]).all()
            assert np.isfinite(logprobs[[0, 5]]).all()


def test_masked_ids_are_never_drawn(module: ModuleType) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 100)).astype(np.float32)
    logits[:, rng.permutation(100)[:90]] = -np.inf
    allowed = np.flatnonzero(np.isfinite(logits[0]))
    for settings in ({}, {"top_k": 50}, {"top_p": 0.999999}, {"top_k": 20, "top_p": 0.99}):
        ids, _ = sample(module, logits, uniforms=rng.random(300), **settings)  # type: ignore[arg-type]
        assert set(ids.tolist()) <= set(allowed.tolist())


def test_extreme_settings_still_draw(module: ModuleType) -> None:
    row = logits_of(*np.linspace(-50, 50, 77))
    for temperature in (1e-30, 1e-6, 1e6, 1e30):
        for top_k, top_p in ((0, 1), (5, 1), (0, 0.9), (77, 1e-9)):
            ids, _ = sample(module, row, temperature, top_k, top_p, uniforms=0.999999)
            assert 0 <= ids[0] < 77


def test_columns_of_a_wider_matrix_are_sampled(module: ModuleType) -> None:
    wide = np.random.default_rng(1).normal(size=(6, 90)).astype(np.float32)
    part = wide[:, 13:50]
    ids, _ = sample(module, part, uniforms=0.3)
    alone, _ = sample(module, np.ascontiguousarray(part), uniforms=0.3, threads=1)
    np.testing.assert_array_equal(ids, alone)
