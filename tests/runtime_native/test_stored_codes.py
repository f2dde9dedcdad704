"""Stored codes are packed as they are, and tables in int8 and int4 give the very rows of the dequantised matrix."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from openautoglm.models.quantised_file import QUANTISED_NAME, QuantisedWriter, StoredMatrix, open_quantised
from openautoglm.runtime.packing import HEADER_BYTES, packed_bytes
from openautoglm.runtime.quantised import QuantisedMatrix, quantise

FORMS = [(bits, group, symmetric) for bits in (8, 4) for group in (0, 6, 16) for symmetric in (True, False)]


def values(rows: int, columns: int) -> Any:
    rng = np.random.default_rng(rows)
    made = rng.normal(size=(rows, columns)) * np.exp(rng.normal(size=(rows, columns)))
    made[rows // 2] = 0
    made[0, :8] = 0
    made[-1] *= 1e-30
    return made.astype(np.float32)


def stored(path: Path, matrix: QuantisedMatrix) -> StoredMatrix:
    with QuantisedWriter(path / QUANTISED_NAME) as writer:
        writer.add("w", matrix)
    return open_quantised(path).stored("w")


def pack(extension: ModuleType, parts: list[StoredMatrix], bias: Any = None, **changes: Any) -> Any:
    form, columns = parts[0].form, parts[0].shape[1]
    rows = sum(part.shape[0] for part in parts)
    given = {"format": f"int{form.bits}", "inputs": columns, "group": form.group, "symmetric": form.symmetric,
             **changes}
    out = np.full(packed_bytes(f"int{form.bits}", rows, columns, form.group, symmetric=form.symmetric),  # type: ignore[arg-type]
                  0xAA, np.uint8)
    codes = [(part.codes.view(np.uint8), part.shares.view(np.uint16), part.row_scales, part.zeros) for part in parts]
    extension.pack_codes(extension.Team(2), codes, bias=bias, out=out, **given)
    return out


@pytest.mark.parametrize(("bits", "group", "symmetric"), FORMS, ids=str)
@pytest.mark.parametrize("columns", [48, 33])
def test_codes_lie_where_rounding_would_put_them(extension: ModuleType, tmp_path: Path, bits: Any, group: int,
                                                 symmetric: bool, columns: int) -> None:
    group = group if columns % (group or 1) == 0 else 11
    matrix, bias = values(45, columns), np.arange(45, dtype=np.float32)
    whole = stored(tmp_path, quantise(matrix, bits, group, symmetric=symmetric))
    expected = np.full(packed_bytes(f"int{bits}", 45, columns, group, symmetric=symmetric), 0, np.uint8)  # type: ignore[arg-type]
    extension.pack(extension.Team(1), [matrix], f"int{bits}", group, symmetric, bias, expected)
    ours = pack(extension, [whole[:7], whole[7:40], whole[40:]], bias)
    for data in (ours, expected):  # outputs that are not there may have any scale
        data[HEADER_BYTES:].reshape(2, -1)[-1, :128].view(np.float32)[13:] = 0
    assert np.array_equal(ours, expected)


def test_codes_that_do_not_fit_are_refused(extension: ModuleType, tmp_path: Path) -> None:
    part = stored(tmp_path, quantise(values(40, 48), 4, 16, symmetric=False))
    for wrong, fault in (({"inputs": 50, "group": 10}, "wrong size"), ({"symmetric": True}, "wrong size"),
                         ({"format": "int8"}, "wrong size"),
                         ({"format": "fp32", "group": 0, "symmetric": True}, "int8 or int4"),
                         ({"bias": np.zeros(3, np.float32)}, "bias does not fit")):
        with pytest.raises(ValueError, match=fault):
            pack(extension, [part], **wrong)
    with pytest.raises(ValueError, match="outputs out of range"):
        extension.pack_codes(extension.Team(1), [], "int8", 8, 8, True, None, np.zeros(8, np.uint8))
    symmetric = StoredMatrix(part.form, part.shape, part.codes, part.shares, part.row_scales, None)
    with pytest.raises(ValueError, match="zero points do not fit"):
        pack(extension, [symmetric])


@pytest.mark.parametrize(("bits", "group", "symmetric"), FORMS, ids=str)
def test_rows_of_a_table_are_those_of_the_matrix(extension: ModuleType, tmp_path: Path, bits: Any, group: int,
                                                 symmetric: bool) -> None:
    columns = 624  # three pieces for the threads, of which none ends where a group does
    matrix = quantise(values(70, columns), bits, group, symmetric=symmetric)
    packed = pack(extension, [stored(tmp_path, matrix)])
    ids = np.array([0, 69, 35, 31, 32, 63, 64, 5], np.int32)
    for isa in extension.supported_isas():
        rows = embedded(extension, extension.Team(2, isa), packed, (bits, group, symmetric), ids, columns)
        assert np.array_equal(rows, matrix.dequantise()[ids])
    with pytest.raises(ValueError, match="ids lie outside 0 to 69"):
        embedded(extension, extension.Team(1), packed, (bits, group, symmetric), ids + 1, columns)


def embedded(extension: ModuleType, team: Any, packed: Any, form: Any, ids: Any, columns: int) -> Any:
    """What a program of one embedding gives."""
    bits, group, symmetric = form
    cache, count = extension.Cache(1, 1, 16, 1, 16, "fp32"), len(ids)
    program = extension.Program(team, cache, count, count, 16, 4 * count * columns)
    number = program.declare_weight(f"int{bits}", 70, columns, group, symmetric)
    taken, given = extension.Call("embedding"), extension.Call("gather_rows")
    arena = extension.Place("arena", False, 0, columns, columns)
    taken.inputs, taken.outputs, taken.weight = [extension.Place("ids")], [arena], number
    given.inputs = [arena, extension.Place("wanted", True)]
    given.outputs, given.barrier = [extension.Place("logits", True, 0, columns, columns)], True
    for call in (taken, given):
        program.add(call)
    payload = extension.Block(len(packed) - HEADER_BYTES).array
    payload[:] = packed[HEADER_BYTES:]
    program.bind_weight(number, payload)
    out = np.empty((count, columns), np.float32)
    numbers = np.arange(count, dtype=np.int32)
    program.step(ids, numbers, np.array([0, count], np.int32), np.array([count], np.int32), np.zeros((1, 1), np.int32),
                 16, numbers, out)
    return out
