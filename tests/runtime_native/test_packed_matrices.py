"""Packed matrices: the extension rounds as numpy does, in the layout of docs/formats.md, and reads within bounds."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import native_reference
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from openautoglm.runtime.packing import HEADER_BYTES, packed_bytes
from openautoglm.runtime.quantised import quantise
from openautoglm.runtime.tensors import to_bf16

FORMATS: list[tuple[Any, int, bool]] = [("fp32", 0, True), ("bf16", 0, True)] + [
    (format, group, symmetric) for format in ("int8", "int4") for group in (0, 8, 12, 24)
    for symmetric in (True, False)]


def matrix(rows: int, columns: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, columns)) * np.exp(rng.normal(size=(rows, columns)) * 2)
    values[rows // 2] = 0
    values[0, :8] = 0
    values[-1] *= 1e-30
    return values.astype(np.float32)


def packed(extension: ModuleType, parts: list[Any], format: str, group: int, symmetric: bool, bias: Any = None
           ) -> NDArray[np.uint8]:
    rows, columns = sum(len(part) for part in parts), parts[0].shape[1]
    out = np.full(packed_bytes(format, rows, columns, group, symmetric=symmetric), 0xAA, np.uint8)  # type: ignore[arg-type]
    extension.pack(extension.Team(2), parts, format, group, symmetric, bias, out)
    return out


def in_numpy(values: Any, bias: Any, format: Any, group: int, symmetric: bool) -> NDArray[np.uint8]:
    if format in ("fp32", "bf16"):
        body, scale, codes_group = native_reference._float_lines(format, values), np.ones(len(values), np.float32), 0
        return native_reference._pack(format, values, body, scale, bias, codes_group, False)
    made = quantise(values, 8 if format == "int8" else 4, group, symmetric=symmetric)
    middle = (128 if format == "int8" else 8) if symmetric else 0
    codes = (made.values.astype(np.int32) + middle).reshape(*made.scales.shape, -1)
    largest = np.abs(made.scales).max(1)
    shares = np.divide(made.scales, largest[:, None], out=np.zeros_like(made.scales), where=largest[:, None] > 0)
    body = native_reference._code_groups(format, codes, shares.astype(np.float16), made.zeros)
    return native_reference._pack(format, values, body, largest, bias, group or values.shape[1], not symmetric)


@pytest.mark.parametrize(("format", "group", "symmetric"), FORMATS)
@pytest.mark.parametrize("rows", [32, 45])
def test_the_extension_packs_as_numpy_does(extension: ModuleType, format: str, group: int, symmetric: bool, rows: int
                                           ) -> None:
    values, bias = matrix(rows, 48), np.arange(rows, dtype=np.float32)
    ours = packed(extension, [values], format, group, symmetric, bias)
    expected = in_numpy(values, bias, format, group, symmetric)
    for data in (ours, expected):  # outputs that are not there may have any scale
        data[HEADER_BYTES:].reshape(-(-rows // 32), -1)[-1, :128].view(np.float32)[(rows - 1) % 32 + 1:] = 0
    assert np.array_equal(ours, expected)


@pytest.mark.parametrize(("format", "group", "symmetric"), FORMATS)
def test_parts_lie_one_under_the_other_and_bf16_is_exact(extension: ModuleType, format: str, group: int, symmetric: bool
                                                         ) -> None:
    halves = to_bf16(matrix(70, 48))
    whole = packed(extension, [halves.float32()], format, group, symmetric)
    parts = [halves.bits[:7], halves[7:40].float32(), halves.bits[40:]]
    assert np.array_equal(packed(extension, parts, format, group, symmetric), whole)
    assert extension.packed_bytes(format, 70, 48, group, symmetric) == whole.size
    facts = extension.check_packed(whole[:HEADER_BYTES], whole.size)
    assert facts == (format, 70, 48, group or (48 if format.startswith("int") else 0), symmetric)


def test_what_cannot_be_packed_is_refused(extension: ModuleType) -> None:
    values, out = matrix(32, 48), np.zeros(packed_bytes("int8", 32, 48, 8), np.uint8)
    team, narrow = extension.Team(1), values[16:, :40].copy()
    for value in (np.nan, np.inf, -np.inf):
        broken = values.copy()
        broken[31, 47] = value
        with pytest.raises(ValueError, match="not finite"):
            extension.pack(team, [broken], "int8", 8, True, None, out)
    for arguments, message in [(([values], "int8", 7, True, None, out), "do not divide 48"),
                               (([values], "int2", 8, True, None, out), "no format 'int2'"),
                               (([values], "int8", 8, True, None, out[1:]), "out has a wrong size"),
                               (([values[:16], narrow], "int8", 8, True, None, out), "number of columns"),
                               (([values.astype(np.float64)], "int8", 8, True, None, out), "parts are fp32"),
                               (([], "int8", 8, True, None, out), "nothing to pack"),
                               (([values], "int8", 8, True, values[0], out), "bias does not fit")]:
        with pytest.raises(ValueError, match=message):
            extension.pack(team, *arguments)


@settings(max_examples=300)
@given(changes=st.lists(st.tuples(st.integers(0, HEADER_BYTES - 1), st.integers(0, 255)), max_size=4),
       size=st.integers(0, 8000))
def test_damaged_headers_are_refused_or_mean_what_they_say(changes: list[tuple[int, int]], size: int) -> None:
    extension: Any = pytest.importorskip("openautoglm.runtime._native", reason="the extension was not built")
    values = matrix(45, 48)
    whole = packed(extension, [values], "int8", 8, False)
    for place, byte in changes:
        whole[place] = byte
    given_bytes = whole[:size].copy() if size < whole.size else whole
    fault, found = "packed matrix: ", None
    try:
        found = extension.Packed(given_bytes)
    except ValueError as error:
        fault = str(error)
    assert fault.startswith("packed matrix: ")
    if found is None:
        return
    format, outputs, inputs, group, symmetric = extension.check_packed(given_bytes[:HEADER_BYTES], given_bytes.size)
    assert given_bytes.size == packed_bytes(format, outputs, inputs, group, symmetric=symmetric)
    x = np.ones((2, found.inputs), np.float32)
    extension.Team(1).linear(found, x, np.empty((2, found.outputs), np.float32))  # reads every byte, and no other
