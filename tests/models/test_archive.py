"""Archives from strangers: nothing runs, nothing lands outside, nothing swells."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openautoglm.core.errors import BundleError
from openautoglm.models import archive
from openautoglm.models.archive import unpack
from openautoglm.models.bundle import Bundle, export, open_bundle


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def zipped(path: Path, fill: Callable[[zipfile.ZipFile], None]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        fill(target)
    return path


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "a/b", "a\\b", "C:evil", ".hidden", "..", "line\nbreak"]
)
def test_a_zip_with_a_path_is_refused(tmp_path: Path, out: Path, name: str) -> None:
    path = zipped(tmp_path / "x.zip", lambda target: target.writestr(name, "x"))
    with pytest.raises(BundleError, match="plain name"):
        unpack(path, out)
    assert not any(out.iterdir())
    assert not (tmp_path / "evil").exists()


def test_a_zip_with_a_link_is_refused(tmp_path: Path, out: Path) -> None:
    link = zipfile.ZipInfo("model.safetensors")
    link.external_attr = 0o120777 << 16
    path = zipped(tmp_path / "x.zip", lambda target: target.writestr(link, "/etc/passwd"))
    with pytest.raises(BundleError, match="regular file"):
        unpack(path, out)


def test_a_zip_that_swells_is_refused(tmp_path: Path, out: Path) -> None:
    path = zipped(tmp_path / "x.zip", lambda target: target.writestr("a", bytes(50_000_000)))
    assert path.stat().st_size < 100_000
    with pytest.raises(BundleError, match="times its size"):
        unpack(path, out)
    with pytest.raises(BundleError, match=r"0\.01 GiB"):
        unpack(path, out, max_bytes=10_000_000)


def test_a_zip_with_a_thousand_files_is_refused(tmp_path: Path, out: Path) -> None:
    path = zipped(
        tmp_path / "x.zip", lambda target: [target.writestr(f"f{i}", "") for i in range(1000)] and None
    )
    with pytest.raises(BundleError, match="256 files"):
        unpack(path, out)


def test_a_zip_that_lies_about_a_length_is_refused(tmp_path: Path, out: Path) -> None:
    path = zipped(tmp_path / "x.zip", lambda target: target.writestr("a", b"x" * 5000))
    content = path.read_bytes().replace(struct.pack("<I", 5000), struct.pack("<I", 50))
    path.write_bytes(content)
    with pytest.raises(BundleError):
        unpack(path, out)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
@pytest.mark.parametrize("suffix", [".zip", ".pkl"])
def test_any_changed_byte_is_noticed_or_harmless(
    written: Bundle, tmp_path: Path, suffix: str, data: st.DataObject
) -> None:
    path = export(written, tmp_path / f"b{suffix}")
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1) | st.integers(len(content) - 900, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        opened = open_bundle(path)
    except BundleError:
        return
    assert opened.card.files == written.card.files


class Evil:
    """Pickles as a call."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("evil-was-here",)


def bytes_of(opcodes: bytes) -> bytes:
    return b"\x80\x04" + opcodes + b"."


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"format": 1, "files": {"a": Evil()}}),
        pickle.dumps(Evil(), protocol=0),
        pickle.dumps({1, 2}),
        pickle.dumps({"format": 1, "files": {"a": bytearray(5)}}, protocol=5),
        bytes_of(b"cos\nsystem\n"),
        bytes_of(b"\x8c\x02os\x8c\x06system\x93"),
        bytes_of(b"\x96" + struct.pack("<Q", 2**60)),
        bytes_of(b"\x8e" + struct.pack("<Q", 2**60)),
        bytes_of(b"\x95" + struct.pack("<Q", 2**60)),
        bytes_of(b"\x82\x01"),
        bytes_of(b"P0\n"),
        b"",
        b"garbage",
        pickle.dumps({"format": 1, "files": {"../a": b"x"}}, protocol=4),
        pickle.dumps({"format": 1, "files": {"a": "text"}}, protocol=4),
        pickle.dumps({"format": 1}, protocol=4),
        pickle.dumps({"format": {}, "files": {}}, protocol=4),
    ],
)
def test_a_pickle_of_anything_else_is_refused(
    tmp_path: Path, out: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(BundleError):
        unpack(tmp_path / "x.pkl", out)
    assert not (tmp_path / "evil-was-here").exists()
    assert not any(out.iterdir())


def test_the_unpickler_alone_finds_no_class() -> None:
    with pytest.raises(pickle.UnpicklingError, match="mkdir"):
        archive._PlainUnpickler(io.BytesIO(pickle.dumps(Evil()))).load()


def test_a_newer_pickle_asks_for_a_newer_version(tmp_path: Path, out: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"format": 2, "files": {}}, protocol=4))
    with pytest.raises(BundleError, match="pickle format 2"):
        unpack(tmp_path / "x.pkl", out)


def test_a_large_pickle_is_refused(written: Bundle, tmp_path: Path) -> None:
    path = export(written, tmp_path / "b.pkl")
    with pytest.raises(BundleError, match="larger than"):
        open_bundle(path, max_bytes=1000)
