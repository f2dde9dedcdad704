"""Attention over the native cache in every format, against numpy, however a sequence is cut into steps."""

from __future__ import annotations

from types import ModuleType

import native_reference as reference
import numpy as np
import pytest

from openautoglm.runtime import native

FORMATS = {"fp32": 1e-5, "bf16": 2e-2, "int8": 4e-2}


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """The extension."""
    found = native.native_module()
    if found is None:
        pytest.skip(native.why_not())
    return found


class Sequences:
    """Random queries, keys and values of some sequences over one cache."""

    def __init__(self, module: ModuleType, format: str, lengths: list[int], heads: int = 4, kv_heads: int = 2,
                 head_dim: int = 32, page_size: int = 16, isa: str = "", threads: int = 2) -> None:
        rng = np.random.default_rng(sum(lengths))
        self.heads, self.kv_heads, self.head_dim, self.page_size = heads, kv_heads, head_dim, page_size
        self.q = [rng.normal(size=(n, heads * head_dim)).astype(np.float32) for n in lengths]
        self.k = [rng.normal(size=(n, kv_heads * head_dim)).astype(np.float32) for n in lengths]
        self.v = [rng.normal(size=(n, kv_heads * head_dim)).astype(np.float32) for n in lengths]
        width = -(-max(lengths) // page_size)
        self.pages = rng.permutation(len(lengths) * width + 1)[1:].reshape(len(lengths), width).astype(np.int32)
        self.cache = module.Cache(2, self.pages.size + 1, page_size, kv_heads, head_dim, format)
        self.team = module.Team(threads, isa)

    def step(self, counts: list[int], starts: list[int], layer: int = 1) -> list[reference.Float32]:
        """Some rows of each sequence (0: it rests); what they get."""
        taking = [s for s, count in enumerate(counts) if count]
        cut = [slice(starts[s], starts[s] + counts[s]) for s in taking]
        q, k, v = (np.concatenate([rows[s][c] for s, c in zip(taking, cut, strict=True)])
                   for rows in (self.q, self.k, self.v))
        first = np.cumsum([0, *(counts[s] for s in taking)]).astype(np.int32)
        lengths = np.array([starts[s] + counts[s] for s in taking], np.int32)
        out = np.full_like(q, np.nan)
        self.team.attention(self.cache, layer, q, k, v, first, lengths, np.ascontiguousarray(self.pages[taking]),
                            self.head_dim ** -0.5, out)
        parts = dict(zip(taking, np.split(out, first[1:-1]), strict=True))
        return [parts.get(s, out[:0]) for s in range(len(counts))]

    def expected(self, number: int) -> reference.Array:
        """What numpy gives for a whole sequence."""
        k, v = (rows[number].reshape(-1, self.kv_heads, self.head_dim) for rows in (self.k, self.v))
        return reference.attention(self.q[number], k, v, 0, self.heads)


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_prompt_attends_as_in_numpy(module: ModuleType, format: str, isa: str) -> None:
    if isa not in module.supported_isas():
        pytest.skip(f"this processor cannot run {isa}")
    lengths = [1, 15, 16, 17, 70]
    sequences = Sequences(module, format, lengths, isa=isa)
    for number, out in enumerate(sequences.step(lengths, [0] * 5)):
        np.testing.assert_allclose(out, sequences.expected(number), atol=FORMATS[format])


@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (8, 1, 64, 32), (6, 2, 48, 64), (16, 4, 128, 16)])
def test_heads_and_pages_of_many_shapes(module: ModuleType, shape: tuple[int, int, int, int]) -> None:
    heads, kv_heads, head_dim, page_size = shape
    sequences = Sequences(module, "fp32", [40, 3], heads, kv_heads, head_dim, page_size)
    for number, out in enumerate(sequences.step([40, 3], [0, 0])):
        np.testing.assert_allclose(out, sequences.expected(number), atol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
def test_how_a_sequence_is_cut_into_steps_changes_no_bit(module: ModuleType, format: str) -> None:
    lengths = [53, 29]
    whole = Sequences(module, format, lengths).step(lengths, [0, 0])
    cut = Sequences(module, format, lengths, threads=3)
    done: list[list[reference.Float32]] = [[], []]
    starts = [0, 0]
    for counts in ([20, 0], [1, 7], [16, 1], [1, 1], [1, 20], [14, 0]):
        for number, out in enumerate(cut.step(counts, starts)):
            done[number].append(out)
            starts[number] += counts[number]
    assert starts == lengths
    for parts, out in zip(done, whole, strict=True):
        np.testing.assert_array_equal(np.concatenate(parts), out)


@pytest.mark.parametrize("format", FORMATS)
def test_a_copied_page_serves_as_the_original(module: ModuleType, format: str) -> None:
    sequences = Sequences(module, format, [33])
    sequences.step([32], [0])
    original = sequences.step([1], [32])[0]
    sequences.cache.copy_page(int(sequences.pages[0, 0]), 0)
    sequences.pages[0, 0] = 0
    np.testing.assert_array_equal(sequences.step([1], [32])[0], original)


def test_caches_hold_what_they_say(module: ModuleType) -> None:
    values = 2 * 3 * 5 * 16 * 2 * 32  # keys and values, layers, pages, tokens, heads, dims
    sizes = {name: module.Cache(3, 5, 16, 2, 32, name).bytes for name in FORMATS}
    assert sizes["fp32"] == 4 * values
    assert sizes["bf16"] == 2 * values
    assert sizes["int8"] == values + values // 32 * 4


def test_layouts_and_caches_that_do_not_fit_are_refused(module: ModuleType) -> None:
    with pytest.raises(ValueError, match="fp32, bf16 or int8"):
        module.Cache(1, 1, 16, 1, 16, "fp8")
    with pytest.raises(ValueError, match="multiple of 16"):
        module.Cache(1, 1, 20, 1, 16)
    sequences = Sequences(module, "bf16", [20])
    with pytest.raises(ValueError, match="no such layer"):
        sequences.step([20], [0], layer=2)
    sequences.pages[0, 1] = 99
    with pytest.raises(ValueError, match="page lies outside"):
        sequences.step([20], [0])
