"""Quantised weights on disk come back as they were; damaged and hostile files are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openautoglm.core.errors import BundleError
from openautoglm.models.quantised_file import QUANTISED_NAME, QuantisedWriter, open_quantised
from openautoglm.runtime.quantised import QuantisedMatrix, quantise, rounded_scales
from openautoglm.runtime.tensors import to_bf16

FORMS = [(8, 0, True), (8, 8, False), (4, 8, True), (4, 16, False), (4, 0, True)]


def matrix(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def same(one: QuantisedMatrix, other: QuantisedMatrix) -> bool:
    pairs = [(one.values, other.values), (one.scales, other.scales), (one.zeros, other.zeros)]
    return one.bits == other.bits and all(
        (a is None and b is None) or (a.dtype == b.dtype and np.array_equal(a, b)) for a, b in pairs)


def write(path: Path, **tensors: Any) -> Path:
    with QuantisedWriter(path) as writer:
        for name, value in tensors.items():
            writer.add(name, value)
    return path


def edit(path: Path, change: Any) -> Path:
    """Write the header again, changed; the tensors stay."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + length])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length:])
    return path


@pytest.mark.parametrize(("bits", "group", "symmetric"), FORMS, ids=lambda value: str(value))
def test_every_form_comes_back_exactly(tmp_path: Path, bits: Any, group: int, symmetric: bool) -> None:
    given = quantise(matrix(37, 48), bits, group, symmetric=symmetric)
    file = open_quantised(write(tmp_path / QUANTISED_NAME, w=given).parent)
    found = file.read("w")
    assert same(found, given)
    assert file.forms["w"] == (bits, group or 48, symmetric)
    assert file.shapes["w"] == (37, 48)
    stored = file.stored("w")
    assert stored.codes.shape == (37, 48 if bits == 8 else 24)
    value = (found.values.astype(np.float32) - (0 if found.zeros is None else np.repeat(found.zeros, found.group, 1)))
    scales = stored.shares.astype(np.float32) * stored.row_scales[:, None]
    assert np.array_equal(value * np.repeat(scales, found.group, 1), given.dequantise())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), rows=st.integers(1, 5), groups=st.integers(1, 4), group=st.integers(1, 9),
       bits=st.sampled_from([8, 4]), symmetric=st.booleans(), exponent=st.integers(-40, 30))
def test_any_matrix_comes_back_exactly(tmp_path: Path, data: Any, rows: int, groups: int, group: int, bits: Any,
                                       symmetric: bool, exponent: int) -> None:
    values = data.draw(st.lists(st.floats(-1, 1, width=32), min_size=rows * groups * group,
                                max_size=rows * groups * group))
    given = quantise((np.array(values) * 10.0**exponent).astype(np.float32).reshape(rows, -1), bits, group,
                     symmetric=symmetric)
    file = open_quantised(write(tmp_path / QUANTISED_NAME, w=given))
    assert same(file.read("w"), given)


def test_other_tensors_metadata_and_order(tmp_path: Path) -> None:
    norm, table = matrix(1, 5)[0], to_bf16(matrix(3, 4))
    path = tmp_path / "deep" / QUANTISED_NAME
    with QuantisedWriter(path, {"recipe": "gptq"}) as writer:
        writer.add("b", quantise(matrix(3, 5), 4, 0))
        writer.add("norm", norm)
        writer.add("table", table)
        writer.add("a", quantise(matrix(2, 8), 8, 4))
    file = open_quantised(path)
    assert set(file.names) == {"a", "b", "norm", "table"}
    assert file.metadata["recipe"] == "gptq"
    assert np.array_equal(file.read("norm"), norm)
    assert np.array_equal(file.read("table"), table.float32())
    assert file.entry("table").kind == "BF16"
    assert "a" in file
    assert "a.codes" not in file


def write_norm_and_nonsense(writer: QuantisedWriter) -> None:
    writer.add("norm", matrix(1, 5)[0])
    writer.add("nonsense", None)  # type: ignore[arg-type]


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / QUANTISED_NAME
    with pytest.raises(BundleError, match="no tensor"), QuantisedWriter(path) as writer:
        write_norm_and_nonsense(writer)
    assert list(tmp_path.iterdir()) == []


def _twice(writer: QuantisedWriter) -> None:
    writer.add("w", quantise(matrix(2, 4), 8, 0))
    writer.add("w.codes", matrix(1, 1))


REFUSED = {
    "stands there": _twice,
    "no fp16 shares": lambda writer: writer.add("w", QuantisedMatrix(
        8, np.zeros((1, 4), np.int8), np.array([[1, 0.3]], np.float32))),
    "do not fit each other": lambda writer: writer.add("w", QuantisedMatrix(
        8, np.zeros((2, 4), np.int8), np.ones((2, 3), np.float32))),
    "lie outside -8 to 7": lambda writer: writer.add("w", QuantisedMatrix(
        4, np.full((2, 4), 8, np.int8), np.ones((2, 1), np.float32))),
    "too large": lambda writer: writer.add("w", QuantisedMatrix(
        8, np.ones((2, 4), np.int8), np.full((2, 1), 3e38, np.float32))),
    "no tensor in fp32": lambda writer: writer.add("w", np.zeros(3)),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_the_writer_refuses_what_a_reader_could_not_use(tmp_path: Path, fault: str) -> None:
    with pytest.raises(BundleError, match=fault), QuantisedWriter(tmp_path / QUANTISED_NAME) as writer:
        REFUSED[fault](writer)
    assert list(tmp_path.iterdir()) == []


def test_scales_rounded_by_us_are_taken(tmp_path: Path) -> None:
    scales = rounded_scales(np.array([[1, 0.3], [0, 0]], np.float32))
    given = QuantisedMatrix(8, np.ones((2, 4), np.int8), scales)
    assert same(open_quantised(write(tmp_path / QUANTISED_NAME, w=given)).read("w"), given)


def _set(*keys: str, to: Any) -> Any:
    def change(header: Any) -> None:
        for key in keys[:-1]:
            header = header[key]
        header[keys[-1]] = to
    return change


HEADERS = {
    "has format 'pt'": _set("__metadata__", "format", to="pt"),
    "has version '2'": _set("__metadata__", "version", to="2"),
    "say nothing of its matrices": _set("__metadata__", "matrices", to="[1]"),
    "cannot have 5 bits": _set("__metadata__", "matrices", to='{"w": [5, 8]}'),
    "do not fit 9 columns": _set("__metadata__", "matrices", to='{"w": [4, 9]}'),
    "should be I8": _set("__metadata__", "matrices", to='{"w": [8, 8]}'),
    "w.scales is missing": lambda header: header.pop("w.scales"),
    "elements of type F16": lambda header: header["__metadata__"].update(matrices="{}"),
    "do not fit 8 columns": _set("w.scales", "shape", to=[8]),
    "does not fill": _set("w.codes", "shape", to=[4, 1 << 62]),
    "lies outside the file": _set("w.codes", "data_offsets", to=[0, 1 << 70]),
    "entry of w.codes cannot be read": _set("w.codes", "shape", to=[float("inf")]),
    "does not lie at a multiple": _set("w.row_scales", "data_offsets", to=[2, 18]),
}


@pytest.mark.parametrize("fault", HEADERS)
def test_headers_that_lie_are_refused(tmp_path: Path, fault: str) -> None:
    path = write(tmp_path / QUANTISED_NAME, w=quantise(matrix(4, 8), 4, 4))
    with pytest.raises(BundleError, match=fault) as caught:
        open_quantised(edit(path, HEADERS[fault]))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("part", "value", "fault"), [
    (".scales", np.float16(np.inf), "not finite"), (".row_scales", np.float32(np.nan), "not finite"),
    (".row_scales", np.float32(3e38), "too large"), (".zeros", np.uint8(16), "outside 0 to 15")], ids=lambda v: str(v))
def test_values_that_cannot_be_are_refused(tmp_path: Path, part: str, value: Any, fault: str) -> None:
    path = write(tmp_path / QUANTISED_NAME, w=quantise(matrix(4, 8), 4, 4, symmetric=False))
    raw = bytearray(path.read_bytes())
    length = int.from_bytes(raw[:8], "little")
    at = 8 + length + json.loads(raw[8:8 + length])["w" + part]["data_offsets"][0]
    raw[at:at + value.nbytes] = value.tobytes()
    path.write_bytes(raw)
    file = open_quantised(path)
    with pytest.raises(BundleError, match=fault):
        file.read("w")


@pytest.mark.parametrize("size", [0, 7, 40, -1], ids=["empty", "no length", "no header", "cut"])
def test_files_cut_short_are_refused(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / QUANTISED_NAME, w=quantise(matrix(4, 8), 4, 4))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(BundleError, match=str(path)):
        open_quantised(path)


def test_missing_names_are_told(tmp_path: Path) -> None:
    file = open_quantised(write(tmp_path / QUANTISED_NAME, w=quantise(matrix(4, 8), 4, 4), norm=matrix(1, 3)[0]))
    for wrong in (lambda: file.read("v"), lambda: file.stored("norm")):
        with pytest.raises(BundleError, match="is missing"):
            wrong()
    with pytest.raises(BundleError, match="is quantised"):
        file.entry("w")
