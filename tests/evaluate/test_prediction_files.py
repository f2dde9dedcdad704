"""Predictions and references from files of every format, and their faults with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from openautoglm.core.errors import EvaluationError
from openautoglm.evaluate.files import read_predictions_references as read


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


def test_plain_lines_and_blocks(tmp_path: Path) -> None:
    predictions = write(tmp_path / "p.txt", "one\ntwo words\n")
    blocks = write(tmp_path / "r.txt", "eins\nun\n\n\nzwei\n")
    assert read(predictions, blocks).references == [("eins", "un"), ("zwei",)]
    lines = write(tmp_path / "l.txt", "eins\r\nzwei\r\n")
    assert read(predictions, lines).references == [("eins",), ("zwei",)]
    assert read(predictions, lines).sources is None


def test_an_empty_prediction_line_is_an_empty_prediction(tmp_path: Path) -> None:
    pairs = read(write(tmp_path / "p.txt", "\nb\n"), write(tmp_path / "r.txt", "a\nb\n"))
    assert pairs.predictions == ["", "b"]


def test_tables_group_references_by_source(tmp_path: Path) -> None:
    references = write(tmp_path / "r.csv", 'mr,ref\nm1,"a\nline"\nm2,b\nm1,c\n')
    predictions = write(tmp_path / "p.tsv", "source\tprediction\nm2\tB\nm1\tA\n")
    pairs = read(predictions, references)
    assert pairs.predictions == ["A", "B"]
    assert pairs.references == [("a\nline", "c"), ("b",)]
    assert pairs.sources == ["m1", "m2"]
    by_order = read(write(tmp_path / "p.txt", "A\nB\n"), references)
    assert by_order.predictions == ["A", "B"]


def test_json_lines_with_lists(tmp_path: Path) -> None:
    predictions = write(tmp_path / "p.jsonl", '{"output": "A"}\n\n"B"\n')
    references = write(tmp_path / "r.jsonl", '{"references": ["a", "b"]}\n["c"]\n')
    assert read(predictions, references)[:2] == (["A", "B"], [("a", "b"), ("c",)])


def test_named_columns(tmp_path: Path) -> None:
    predictions = write(tmp_path / "p.csv", "key,mine\n1,A\n")
    references = write(tmp_path / "r.csv", "key,theirs\n1,a\n1,b\n")
    pairs = read(predictions, references, prediction_column="mine", reference_column="theirs",
                 source_column="key")
    assert pairs == (["A"], [("a", "b")], ["1"])


def test_unusual_line_separators_stay_in_their_text(tmp_path: Path) -> None:
    predictions = write(tmp_path / "p.csv", "prediction\na\u2028b\x0bc\x85d\n")
    assert read(predictions, write(tmp_path / "r.txt", "a\u2028b\n")).predictions == ["a\u2028b\x0bc\x85d"]


@pytest.mark.parametrize(("name", "text", "message"), [
    ("p.txt", "a\nb\nc\n", r"p\.txt:3: 3 predictions, but references for 2 cases"),
    ("p.txt", "a\n", r"r\.csv:3: 1 predictions, but references for 2 cases"),
    ("p.txt", "", r"p\.txt: the file holds no text"),
    ("p.csv", "x,y\n1,2\n", r"p\.csv:1: there is no column prediction"),
    ("p.csv", "prediction,x\n1\n", r"p\.csv:2: 1 cells under 2 columns"),
    ("p.csv", 'prediction\n"a', r"p\.csv:2: not a table"),
    ("p.csv", "mr,output\nm1,A\nm1,B\nm2,C\n", r"p\.csv:3: another prediction than on line 2"),
    ("p.csv", "mr,output\nm1,A\nm3,B\n", r"p\.csv:3: there are no references for this source"),
    ("p.csv", "mr,output\nm1,A\n", r"r\.csv:3: there is no prediction for this source"),
    ("p.jsonl", '"a"\n{"b"\n', r"p\.jsonl:2: not JSON"),
    ("p.jsonl", '"a"\n3\n', r"p\.jsonl:2: a text or a list of texts"),
    ("p.jsonl", '["a", "b"]\n"c"\n', r"p\.jsonl:1: 2 predictions for one case"),
    ("p.jsonl", '{"x": "a"}\n', r"p\.jsonl:1: there is no key prediction"),
    ("p.jsonl", '"\\ud800"\n"c"\n', r"p\.jsonl:1: half of a surrogate pair"),
    ("p.jsonl", "[" * 100_000 + "\n", r"p\.jsonl:1: not JSON"),
])
def test_faults_name_file_and_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    references = write(tmp_path / "r.csv", "mr,ref\nm1,a\nm2,b\n")
    with pytest.raises(EvaluationError, match=message):
        read(write(tmp_path / name, text), references)


def test_unreadable_files(tmp_path: Path) -> None:
    references = write(tmp_path / "r.txt", "a\n")
    with pytest.raises(EvaluationError, match="No such file"):
        read(tmp_path / "absent.txt", references)
    (tmp_path / "latin.txt").write_bytes(b"a\n\xe9\n")
    with pytest.raises(EvaluationError, match=r"latin\.txt:2: not UTF-8"):
        read(tmp_path / "latin.txt", references)
