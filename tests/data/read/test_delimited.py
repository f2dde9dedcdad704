"""CSV and TSV: line numbers, quotes, recovery, bounds."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openautoglm.core.errors import DataError
from openautoglm.core.values import Example
from openautoglm.data.read import columns, read
from openautoglm.data.settings import DataSettings

CHARACTERS = st.characters(exclude_categories=("Cs",), exclude_characters="\0")
Brief = Callable[..., list[tuple[int, str, str]]]


def test_rows_after_a_quoted_newline_keep_their_true_line(brief: Brief) -> None:
    assert brief(b'a,b\n1,"two\nlines"\r\n3,"x\r\ny"\n5,z\n') == [
        (2, "1", "two\nlines"), (4, "3", "x\r\ny"), (6, "5", "z")]


def test_blank_lines_are_no_rows_but_count_as_lines(brief: Brief) -> None:
    assert brief(b"a,b\n\n1,x\n\r\n2,y") == [(3, "1", "x"), (5, "2", "y")]


def test_an_unclosed_quote_costs_one_line_not_the_file(brief: Brief) -> None:
    rows = b"".join(b"%d,x%d\n" % (number, number) for number in range(2000))
    items = brief(b'a,b\n0,ok\n"1,open\n' + rows + b'7,"closed"\n', max_row_bytes=500)
    assert items[:3] == [(2, "0", "ok"), (3, "!", "unclosed_quote"), (4, "0", "x0")]
    assert len(items) == 2003
    assert items[-1] == (2004, "7", "closed")


def test_an_unclosed_quote_at_the_end_gives_back_what_it_swallowed(brief: Brief) -> None:
    assert brief(b'a,b\n"1,x\n2,y\n3,z\n') == [(2, "!", "unclosed_quote"), (3, "2", "y"), (4, "3", "z")]


def test_text_after_a_closing_quote_is_refused_on_its_line(brief: Brief) -> None:
    assert brief(b'a,b\n"1"x,y\n2,"y"\n') == [(2, "!", "broken_row"), (3, "2", "y")]


def test_wrong_numbers_of_columns(brief: Brief) -> None:
    assert brief(b"a,b\n1\n1,2,3\n4,5\n") == [(2, "!", "wrong_columns"), (3, "!", "wrong_columns"),
                                              (4, "4", "5")]


def test_broken_bytes_and_nul_stay_on_their_row(brief: Brief) -> None:
    content = b'a,b\n1,\xff\xfe\n2,"x\n\xc3"\n3,n\0l\n4,ok\n'
    assert brief(content) == [(2, "!", "broken_encoding"), (3, "!", "broken_encoding"), (5, "!", "nul_byte"),
                              (6, "4", "ok")]


def test_a_row_longer_than_the_limit_is_rejected_with_bounded_text(
        read_bytes: Callable[..., list[Example]]) -> None:
    items = read_bytes(b"a,b\n1," + b"x" * 900_000 + b"\n2,y\n", max_row_bytes=1000)
    assert items[0].reason == "row_too_long"  # type: ignore[attr-defined]
    assert len(items[0].raw) <= 2000  # type: ignore[attr-defined]
    assert (items[1].origin.line, items[1].target) == (3, "y")


def test_cells_larger_than_the_csv_module_allows_by_default(brief: Brief) -> None:
    assert brief(b'a,b\n1,"' + b"x" * 200_000 + b'"\n') == [(2, "1", "x" * 200_000)]


def test_tabs_other_delimiters_no_quotes_no_header(brief: Brief) -> None:
    assert brief(b"a\tb\n1\tx,y\n", "f.tsv") == [(2, "1", "x,y")]
    assert brief(b"a;b\n1;x\n", delimiter=";") == [(2, "1", "x")]
    assert brief(b'a\tb\n1\t"x\n2\t"y\n', "f.tsv", quoting=False) == [(2, "1", '"x'), (3, "2", '"y')]
    assert brief(b"1,x\n", header=["a", "b"]) == [(1, "1", "x")]


def test_a_missing_column_names_the_nearest(brief: Brief) -> None:
    with pytest.raises(DataError, match=r"no column 'b'; columns: 'a', 'target'"):
        brief(b"a,target\n1,x\n")
    with pytest.raises(DataError, match="nearest: 'reference'"):
        brief(b"a,reference\n1,x\n", source="a", target="refrence")
    with pytest.raises(DataError, match="stands 2 times"):
        brief(b"a,b,b\n1,x,y\n")
    with pytest.raises(DataError, match="header row is unreadable"):
        brief(b"a,\xff\n1,x\n")


def test_columns_without_reading_on(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(b'name,"long\nname"\n' + b"\xff" * 10)
    assert columns(path, DataSettings(train="f.csv", source="a", target="b")) == ["name", "long\nname"]


@settings(deadline=None, max_examples=50)
@given(rows=st.lists(st.tuples(st.text(CHARACTERS), st.text(CHARACTERS)), max_size=5))
def test_what_the_csv_module_writes_is_read_back_with_true_lines(
        tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    path = tmp_path_factory.getbasetemp() / "written.csv"
    path.write_bytes(text.getvalue().encode())
    items = list(read([path], DataSettings(train="f.csv", source="a", target="b", allow_empty=True)))
    assert [(item.source, item.target) for item in items if isinstance(item, Example)] == rows
    line = 2
    for item, row in zip(items, rows, strict=True):
        assert item.origin.line == line
        line += 1 + sum(cell.count("\n") for cell in row)
