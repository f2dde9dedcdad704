"""Products with packed weights: every format against numpy, all instruction paths and batches alike."""

from __future__ import annotations

from types import ModuleType

import native_reference as reference
import numpy as np
import pytest
from numpy.typing import NDArray

from openautoglm.runtime import native

FLOATS = ("fp32", "bf16")
CODES = [(name, group, zeros) for name in ("int8", "int4") for group in (0, 20, 32, 64, 128) for zeros in (False, True)]
ROWS = (1, 2, 3, 5, 7, 8, 12, 13, 25, 40)


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """The extension."""
    found = native.native_module()
    if found is None:
        pytest.skip(native.why_not())
    return found


def product(module: ModuleType, isa: str, weight: reference.Weight, x: reference.Float32, threads: int = 1
            ) -> reference.Float32:
    """x times a weight."""
    out = np.full((len(x), len(weight.values)), np.nan, np.float32)
    module.Team(threads, isa).linear(module.Packed(weight.packed), x, out)
    return out


def random_rows(rng: np.random.Generator, rows: int, width: int) -> reference.Float32:
    """Rows of quite different size, as activations have."""
    return (rng.normal(size=(rows, width)) * rng.uniform(0.1, 3, (rows, 1))).astype(np.float32)


@pytest.mark.parametrize(("outputs", "inputs"), [(32, 640), (33, 77), (100, 1920), (7, 1)])
@pytest.mark.parametrize("name", FLOATS)
def test_products_with_floats_are_those_of_numpy_on_every_path(module: ModuleType, name: str, outputs: int, inputs: int
                                                               ) -> None:
    rng = np.random.default_rng(outputs)
    weight = reference.make_weight(rng, name, outputs, inputs)
    for rows in ROWS:
        x = random_rows(rng, rows, inputs)
        exact = reference.linear(x, weight, None)
        for isa in module.supported_isas():
            np.testing.assert_allclose(product(module, isa, weight, x), exact, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(("name", "group", "zeros"), CODES)
def test_products_with_codes_are_those_of_numpy_and_alike_on_every_path(module: ModuleType, name: str, group: int,
                                                                        zeros: bool) -> None:
    rng = np.random.default_rng(group + zeros)
    weight = reference.make_weight(rng, name, 70, 1920 if group in (20, 0) else 640, group, zeros)
    for rows in ROWS:
        x = random_rows(rng, rows, weight.values.shape[1])
        results = [product(module, isa, weight, x) for isa in module.supported_isas()]
        np.testing.assert_allclose(results[0], reference.linear(x, weight, group), rtol=1e-5, atol=2e-5)
        for other in results[1:]:
            np.testing.assert_array_equal(other, results[0])


@pytest.mark.parametrize("name", ["fp32", "bf16", "int8", "int4"])
def test_a_row_gives_the_same_in_any_batch_and_team(module: ModuleType, name: str) -> None:
    rng = np.random.default_rng(1)
    weight = reference.make_weight(rng, name, 97, 1280, 64 if name.startswith("int") else 0)
    x = random_rows(rng, 131, 1280)
    for isa in module.supported_isas():
        whole = product(module, isa, weight, x)
        for rows in (1, 4, 6, 11, 12, 50):
            np.testing.assert_array_equal(product(module, isa, weight, x[-rows:]), whole[-rows:])
        for threads in (2, 3, 5):
            np.testing.assert_array_equal(product(module, isa, weight, x, threads), whole)


def test_products_take_columns_of_wider_matrices(module: ModuleType) -> None:
    rng = np.random.default_rng(2)
    wide_x, wide_out = random_rows(rng, 9, 300), np.zeros((9, 200), np.float32)
    for name in ("fp32", "int8"):
        weight = reference.make_weight(rng, name, 64, 128, 32 if name == "int8" else 0)
        module.Team(2).linear(module.Packed(weight.packed), wide_x[:, 100:228], wide_out[:, 50:114])
        apart = product(module, "", weight, np.ascontiguousarray(wide_x[:, 100:228]))
        np.testing.assert_array_equal(wide_out[:, 50:114], apart)
        assert not wide_out[:, :50].any()
        assert not wide_out[:, 114:].any()


def test_largest_codes_do_not_overflow(module: ModuleType) -> None:
    rng = np.random.default_rng(3)
    x = np.ones((3, 256), np.float32) * np.array([[1], [-1], [1]], np.float32)
    for name, top in (("int8", 255), ("int4", 15)):
        weight = reference.make_weight(rng, name, 32, 256, 128, zeros=True)
        raw = weight.packed.copy()
        body = raw[64 + 256:].reshape(2, -1)
        body[:, 64:128] = 0  # zero points
        body[:, 128:] = 255  # all codes the largest
        full = weight._replace(packed=raw)
        filled = product(module, "portable", full, x)
        for isa in module.supported_isas():
            np.testing.assert_array_equal(product(module, isa, full, x), filled)
        heads = body[:, :64].copy().view(np.float16).astype(np.float64)
        scale = raw[64:64 + 128].view(np.float32).astype(np.float64)
        exact = top * 128 * heads.sum(0) * scale
        np.testing.assert_allclose(filled[0], exact + weight.bias, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(filled[1], -exact + weight.bias, rtol=1e-5, atol=1e-4)


def test_rows_that_are_not_finite_say_so(module: ModuleType) -> None:
    rng = np.random.default_rng(4)
    weight = reference.make_weight(rng, "int8", 32, 64, 32)
    x = random_rows(rng, 3, 64)
    x[1, 5] = np.inf
    x[2, 40] = np.nan
    for isa in module.supported_isas():
        out = product(module, isa, weight, x)
        assert np.isfinite(out[0]).all()
        assert np.isnan(out[1:]).all()


def test_the_path_can_be_forced(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for isa in module.supported_isas():
        monkeypatch.setenv("OPENAUTOGLM_ISA", isa)
        assert module.Team().isa == isa
    monkeypatch.delenv("OPENAUTOGLM_ISA")
    assert module.Team().isa == module.supported_isas()[-1]
    assert module.Team(1, "portable").isa == "portable"
    with pytest.raises(ValueError, match="unknown instruction path 'abacus'"):
        module.Team(1, "abacus")


def codes_of(rows: int, width: int, group: int) -> tuple[NDArray[np.int8], reference.Float32, NDArray[np.int32]]:
    """Room for codes, their scales and sums."""
    size = group or width
    groups = width // size
    return (np.full((rows, groups * (-(-size // 8) * 8)), 99, np.int8), np.empty((rows, groups), np.float32),
            np.empty((rows, groups), np.int32))


@pytest.mark.parametrize("group", [0, 8, 20, 32, 48, 128])
def test_rows_are_rounded_alike_on_every_path(module: ModuleType, group: int) -> None:
    x = random_rows(np.random.default_rng(5), 5, 1920)
    x[2] = 0
    x[3, :64] = 1e-36
    expected = reference.quantise_rows(x, group)
    padding = -(group or 1920) % 8
    values = np.pad(expected.codes, [(0, 0), (0, 0), (0, padding)]).reshape(5, -1)
    for isa in module.supported_isas():
        codes, scales, sums = codes_of(5, 1920, group)
        module.Team(2, isa).quantise_rows(x, group, codes, scales, sums)
        np.testing.assert_array_equal(codes, values)
        np.testing.assert_array_equal(scales, np.where(expected.scales > 1e-32, expected.scales, 0))
        np.testing.assert_array_equal(sums, expected.codes.sum(-1))


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_codes_made_once_serve_every_reader(module: ModuleType, rows: int) -> None:
    rng = np.random.default_rng(6)
    x = random_rows(rng, rows, 256)
    codes, scales, sums = codes_of(rows, 256, 32)
    team = module.Team(2)
    team.quantise_rows(x, 32, codes, scales, sums)
    for name in ("int8", "int4"):
        weight = reference.make_weight(rng, name, 96, 256, 32)
        out = np.empty((rows, 96), np.float32)
        team.quantised_rows_linear(module.Packed(weight.packed), codes, scales, sums, out)
        np.testing.assert_array_equal(out, product(module, "", weight, x))


def test_shapes_that_do_not_fit_are_refused(module: ModuleType) -> None:
    weight = module.Packed(reference.make_weight(np.random.default_rng(7), "int8", 32, 64, 32).packed)
    team, out = module.Team(), np.empty((2, 32), np.float32)
    with pytest.raises(ValueError, match="x has 60 columns, the weight 64 inputs"):
        team.linear(weight, np.empty((2, 60), np.float32), out)
    with pytest.raises(ValueError, match="out has a wrong shape"):
        team.linear(weight, np.empty((3, 64), np.float32), out)
    codes, scales, sums = codes_of(2, 64, 64)
    with pytest.raises(ValueError, match="scales have a wrong shape"):
        team.quantised_rows_linear(weight, codes, scales, sums, out)
    with pytest.raises(ValueError, match="groups do not divide"):
        team.quantise_rows(np.empty((2, 64), np.float32), 48, codes, scales, sums)


def test_arrays_side_by_side_do_not_overlap(module: ModuleType) -> None:
    memory = np.zeros((4, 256), np.float32)
    weight = reference.make_weight(np.random.default_rng(4), "fp32", 128, 128, 0)
    team, packed = module.Team(1), module.Packed(weight.packed)
    team.linear(packed, memory[:2, 128:], memory[2:, :128])  # the stride of x leads into out, its rows do not
    with pytest.raises(ValueError, match="must not overlap"):
        team.linear(packed, memory[:2, 128:], memory[1:3, :128])
