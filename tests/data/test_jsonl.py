"""Our own files of examples: what is written is read back; damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openautoglm.core.errors import DataError
from openautoglm.core.values import Example, Origin, Turn
from openautoglm.data.jsonl import decode_example, encode_example, read_examples, write_examples

TEXT = st.text(st.characters(exclude_categories=("Cs",)))
EXAMPLES = st.builds(
    Example, TEXT, TEXT, st.builds(Origin, TEXT, st.integers(1, 1 << 40)),
    st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
    st.lists(st.builds(Turn, TEXT, TEXT), max_size=3).map(tuple))


@settings(deadline=None, max_examples=50)
@given(EXAMPLES)
def test_an_example_survives_as_one_line(example: Example) -> None:
    line = encode_example(example)
    assert "\n" not in line
    assert decode_example(line) == example


def test_files_are_streamed_back_in_order(tmp_path: Path) -> None:
    examples = [Example(f"s{number}", "t\n\u2028", Origin("f.csv", number), (("k", "v"),),
                        (Turn("user", "q"),))
                for number in range(1, 100)]
    assert write_examples(tmp_path / "x.jsonl", iter(examples)) == 99
    assert list(read_examples(tmp_path / "x.jsonl")) == examples


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"source": 1, "target": "t", "file": "f"}', "\udcff"])
def test_damage_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.jsonl"
    write_examples(path, [Example("s", "t", Origin("f", 1))])
    with path.open("ab") as file:
        file.write(line.encode("utf-8", "surrogateescape") + b"\n")
    with pytest.raises(DataError, match=r"x\.jsonl:2: not an example"):
        list(read_examples(path))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        list(read_examples(tmp_path / "absent.jsonl"))
