"""Files are whole or absent; hashes and fingerprints say when they changed."""

from __future__ import annotations

import math
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openautoglm.core.files import (
    atomic_folder,
    atomic_write,
    fingerprint,
    read_json,
    sha256_file,
    write_json,
)

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False)
JSON = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=4), SCALARS, max_size=3)


def test_a_written_file_replaces_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    for text in ("first\n", "zweite Zeile: ü\n"):
        with atomic_write(path) as file:
            file.write(text)
        assert path.read_bytes() == text.encode()
    assert [item.name for item in path.parent.iterdir()] == ["a.txt"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o044


def test_a_failure_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def half() -> None:
        with atomic_write(path, "wb") as file:
            file.write(b"new")
            raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_swapped_whole(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    for name in ("one", "two"):
        with atomic_folder(path) as part:
            (part / name).write_text(name)
    assert [item.name for item in path.iterdir()] == ["two"]

    def half() -> None:
        with atomic_folder(path) as part:
            (part / "three").write_text("3")
            raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        half()
    assert [item.name for item in path.iterdir()] == ["two"]
    assert list(tmp_path.iterdir()) == [path]


def test_json_refuses_what_is_not_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"über": [1, None]})
    assert read_json(path) == {"über": [1, None]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"loss": math.nan})
    assert read_json(path) == {"über": [1, None]}


def test_the_hash_is_the_known_one(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@settings(max_examples=40)
@given(JSON)
def test_a_fingerprint_forgets_key_order_and_nothing_else(value: object) -> None:
    assert fingerprint({"a": value, "b": 1}) == fingerprint({"b": 1, "a": value})
    assert fingerprint({"a": value, "b": 1}) != fingerprint({"a": value, "b": 2})
    assert len(fingerprint(value)) == 16
