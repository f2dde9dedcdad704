"""Norms, rotary positions, gates, sums and table rows: against numpy, and alike on every instruction path."""

from __future__ import annotations

from types import ModuleType

import native_reference as reference
import numpy as np
import pytest

from openautoglm.runtime import native

WIDTHS = (1, 7, 8, 31, 256, 520, 1000)
ROWS = (1, 2, 9)


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """The extension."""
    found = native.native_module()
    if found is None:
        pytest.skip(native.why_not())
    return found


@pytest.fixture(params=["portable", "avx2", "avx512"])
def isa(request: pytest.FixtureRequest, module: ModuleType) -> str:
    """Each path that runs here."""
    if request.param not in module.supported_isas():
        pytest.skip(f"this processor cannot run {request.param}")
    return str(request.param)


def draw(*shape: int, seed: int = 0) -> reference.Float32:
    """Normal numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 3])
def test_norms(module: ModuleType, isa: str, threads: int) -> None:
    team = module.Team(threads, isa)
    for rows in ROWS:
        for width in WIDTHS:
            x, weight, out = draw(rows, width), draw(width, seed=1), np.empty((rows, width), np.float32)
            team.rms_norm(x, weight, 1e-5, out)
            np.testing.assert_allclose(out, reference.rms_norm(x, weight, 1e-5), rtol=1e-5, atol=1e-6)
            y, total = draw(rows, width, seed=2), x.copy()
            team.add_rms_norm(total, y, weight, 1e-5, out)
            np.testing.assert_array_equal(total, x + y)
            np.testing.assert_allclose(out, reference.rms_norm(x + y, weight, 1e-5), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("group", [0, 20, 32])
def test_fused_operators_give_what_their_parts_give(module: ModuleType, isa: str, threads: int, group: int) -> None:
    team, width = module.Team(threads, isa), 320
    size = group or width
    for rows in ROWS:
        x, y, weight = draw(rows, width), draw(rows, width, seed=1), draw(width, seed=2)

        def codes(rows: int = rows) -> tuple[reference.Array, ...]:
            padded = -(-size // 8) * 8
            return (np.empty((rows, width // size * padded), np.int8), np.empty((rows, width // size), np.float32),
                    np.empty((rows, width // size), np.int32))

        normed, total, apart, together = np.empty_like(x), x.copy(), codes(), codes()
        team.rms_norm(x, weight, 1e-5, normed)
        team.quantise_rows(normed, group, *apart)
        team.rms_norm_quantise(x, weight, 1e-5, group, *together)
        for one, other in zip(apart, together, strict=True):
            np.testing.assert_array_equal(one, other)
        team.add_rms_norm(total, y, weight, 1e-5, normed)
        team.quantise_rows(normed, group, *apart)
        separate, in_place = np.empty_like(x), x.copy()
        for out in (separate, in_place):
            team.add_rms_norm_quantise(in_place if out is in_place else x, y, weight, 1e-5, group, out, *together)
            np.testing.assert_array_equal(out, total)
            for one, other in zip(apart, together, strict=True):
                np.testing.assert_array_equal(one, other)
        gate_up = draw(rows, 2 * width, seed=3)
        gate, up = gate_up[:, :width], gate_up[:, width:]
        team.silu_mul(gate, up, normed)
        team.quantise_rows(normed, group, *apart)
        team.silu_mul_quantise(gate, up, group, *together)
        for one, other in zip(apart, together, strict=True):
            np.testing.assert_array_equal(one, other)


def test_gates(module: ModuleType, isa: str) -> None:
    team = module.Team(2, isa)
    for width in WIDTHS:
        gate, up, out = 20 * draw(3, width), draw(3, width, seed=1), np.empty((3, width), np.float32)
        team.silu_mul(gate, up, out)
        np.testing.assert_allclose(out, reference.silu(gate) * up, rtol=2e-6, atol=1e-30)


@pytest.mark.parametrize("dims", [0, 2, 6, 16, 24])
def test_rotary_turns_pairs_in_place_and_nothing_else(module: ModuleType, isa: str, dims: int) -> None:
    team, head_dim, heads = module.Team(2, isa), 24, 3
    angles = draw(50, dims // 2)
    table = np.stack([np.cos(angles), np.sin(angles)], -1).reshape(50, dims)
    positions = np.array([3, 49, 0, 7], np.int32)
    wide = draw(4, 100)
    x = wide[:, 10:10 + heads * head_dim]
    expected = x.copy().reshape(4, heads, head_dim)
    first, second = expected[..., :dims:2].copy(), expected[..., 1:dims:2].copy()
    cosine, sine = (part[positions][:, None] for part in (np.cos(angles), np.sin(angles)))
    turned = np.stack([first * cosine - second * sine, second * cosine + first * sine], -1)
    expected[..., :dims] = turned.reshape(4, heads, dims)
    before = wide.copy()
    team.rotary(x, positions, table, head_dim)
    np.testing.assert_allclose(x.reshape(4, heads, head_dim), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(x.reshape(4, heads, head_dim)[..., dims:], expected[..., dims:])
    np.testing.assert_array_equal(wide[:, :10], before[:, :10])
    np.testing.assert_array_equal(wide[:, 10 + heads * head_dim:], before[:, 10 + heads * head_dim:])


def test_rows_of_tables(module: ModuleType, isa: str) -> None:
    team, numbers = module.Team(2, isa), np.array([4, 0, 4, 9], np.int32)
    for width in WIDTHS:
        table, out = draw(10, width), np.empty((4, width), np.float32)
        team.gather_fp32(table, numbers, out)
        np.testing.assert_array_equal(out, table[numbers])
        halves = reference.bf16(table)
        team.gather_bf16(halves, numbers, out)
        np.testing.assert_array_equal(out, reference.widen(halves)[numbers])
        codes, scales = np.rint(table * 30).astype(np.int8), np.abs(draw(10, seed=1))
        team.gather_int8(codes, scales, numbers, out)
        np.testing.assert_allclose(out, (codes * scales[:, None])[numbers], rtol=1e-6)
        team.gather_rows(table, numbers, out)
        np.testing.assert_array_equal(out, table[numbers])
    with pytest.raises(ValueError, match="row number lies outside"):
        team.gather_rows(table, np.array([10], np.int32), out[:1])


def test_paths_agree_to_the_last_bit_where_nothing_is_summed(module: ModuleType) -> None:
    x, table = draw(3, 48), draw(9, 16, seed=1)
    results = []
    for isa in module.supported_isas():
        turned = x.copy()
        module.Team(1, isa).rotary(turned, np.array([1, 8, 3], np.int32), table, 24)
        results.append(turned)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])
