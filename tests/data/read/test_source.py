"""Files, gzip, encodings, byte-order marks, formats, paths."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from openautoglm.core.errors import DataError
from openautoglm.core.values import Example, Reject
from openautoglm.data.read import columns, count_bytes, read, resolve
from openautoglm.data.settings import DataSettings

Brief = Callable[..., list[tuple[int, str, str]]]
TEXT = "a,b\n名,詩😀\n2,y\n"
PAIR = DataSettings(train="f.csv", source="a", target="b")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_known_by_their_mark(brief: Brief, encoding: str) -> None:
    assert brief(TEXT.encode(encoding)) == [(2, "名", "詩😀"), (3, "2", "y")]


@pytest.mark.parametrize("encoding",
                         ["gb18030", "utf-16-le", "utf-16-be", "utf-16", "utf-8", "utf-8-sig", "utf-7"])
def test_encodings_that_are_declared(brief: Brief, encoding: str) -> None:
    assert brief(TEXT.encode(encoding), encoding=encoding) == [(2, "名", "詩😀"), (3, "2", "y")]
    assert brief(b'[{"a": "1", "b": "caf\xe9"}]', "f.json", encoding="latin-1") == [(1, "1", "café")]


def test_broken_text_in_other_encodings_stays_on_its_row(brief: Brief) -> None:
    wide = "a,b\n1,".encode("utf-16") + b"\x00\xd8" + "\n2,y\n".encode("utf-16-le") + b"3"
    assert brief(wide) == [(2, "!", "broken_encoding"), (3, "2", "y"), (4, "!", "broken_encoding")]
    assert brief(b"a,b\n1,\x81\x20\n2,y\n", encoding="gb18030") == [(2, "!", "broken_encoding"),
                                                                    (3, "2", "y")]


def test_old_line_ends(brief: Brief) -> None:
    assert brief(b"a,b\r1,x\r2,y\r") == [(2, "1", "x"), (3, "2", "y")]


def test_gzip_is_known_by_its_bytes_and_a_cut_one_gives_a_reject(tmp_path: Path) -> None:
    rows = "a,b\n" + "".join(f"{number},{number * 7919 % 10007}\n" for number in range(100_000))
    whole, cut, plain = tmp_path / "whole.csv", tmp_path / "cut.csv.gz", tmp_path / "plain.csv.gz"
    whole.write_bytes(gzip.compress(rows.encode()))
    cut.write_bytes(gzip.compress(rows.encode())[:-20_000])
    plain.write_text("a,b\n1,x\n")
    seen = 0

    def on_bytes(count: int) -> None:
        nonlocal seen
        seen += count

    paths = [cut, whole, plain]
    items = list(read(paths, PAIR, on_bytes))
    rejects = [item for item in items if isinstance(item, Reject)]
    assert [(item.reason, item.origin.file) for item in rejects] == [("damaged_gzip", str(cut))]
    assert 10_000 < rejects[0].origin.line < 100_000
    assert sum(item.origin.file == str(whole) for item in items) == 100_000
    assert items[-1] == Example("1", "x", items[-1].origin)
    assert seen == count_bytes(paths)


def test_whole_files_that_cannot_be_read_are_errors(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "bad.parquet").write_bytes(b"PAR1" + b"\0" * 100 + b"PAR1")
    (tmp_path / "none.parquet").write_bytes(b"")
    (tmp_path / "file.xyz").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("folder.csv", "bad.parquet", "none.parquet", "file.xyz", "pipe.csv", "absent.csv"):
        with pytest.raises(DataError) as error:
            list(read([tmp_path / name], PAIR))
        assert error.value.where == str(tmp_path / name)
        assert error.value.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("a,b\n")
    path.chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        list(read([path], PAIR))


def test_paths_and_globs(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "[x].csv"):
        (tmp_path / name).write_text("a,b\n")
    assert [path.name for path in resolve(["b.csv", "*.csv"], tmp_path)] == ["b.csv", "[x].csv", "a.csv"]
    assert [path.name for path in resolve(["[x].csv"], tmp_path)] == ["[x].csv"]
    with pytest.raises(DataError, match=r"nearest in that folder: a\.csv"):
        resolve(["aa.csv"], tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        resolve(["none/aa.csv"], tmp_path)
    with pytest.raises(DataError, match="directory"):
        resolve(["."], tmp_path)


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    for name in ("f.csv", "f.jsonl", "f.txt"):
        path = tmp_path / name
        path.write_bytes(b"")
        assert list(read([path], PAIR if name != "f.txt" else DataSettings(train=name))) == []
    assert columns(tmp_path / "f.csv", PAIR) == []


def test_plain_text_by_paragraph_and_by_line(brief: Brief) -> None:
    content = b"\none\r\ntwo\n \n\nthree\n\xff\nmore\n\nend"
    assert brief(content, "f.txt", text=True) == [
        (2, "", "one\ntwo"), (6, "!", "broken_encoding"), (10, "", "end")]
    assert brief(content, "f.txt", text=True, text_unit="line") == [
        (2, "", "one"), (3, "", "two"), (6, "", "three"), (7, "!", "broken_encoding"), (8, "", "more"),
        (10, "", "end")]
    long = b"x" * 60 + b"\n" + b"y" * 60 + b"\n\nz\n"
    assert brief(long, "f.txt", text=True, max_row_bytes=100) == [(1, "!", "row_too_long"), (4, "", "z")]


def test_parquet_rows_by_number(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    path = tmp_path / "f.parquet"
    targets = [f"t{number}" for number in range(20_000)]
    targets[9] = None
    targets[10] = "x" * 2_000_000
    polars.DataFrame({"a": range(20_000), "b": targets,
                      "c": [[{"role": "user"}]] * 20_000}).write_parquet(path)
    items = list(read([path], PAIR))
    assert [item.reason for item in items if isinstance(item, Reject)] == ["null", "row_too_long"]
    assert (items[9].origin.line, items[11].origin.line, items[-1].origin.line) == (10, 12, 20_000)
    assert items[-1].target == "t19999"
    assert columns(path, PAIR) == ["a", "b", "c"]
    damaged = bytearray(path.read_bytes())
    damaged[2000:6000] = b"\xff" * 4000
    path.write_bytes(damaged)
    items = list(read([path], PAIR))
    assert isinstance(items[-1], Reject)
    assert items[-1].reason == "damaged_parquet"
