"""The reference of the task file is complete and up to date."""

from __future__ import annotations

from pathlib import Path

from openautoglm.pipeline.reference import reference
from openautoglm.pipeline.task import Task

FILE = Path(__file__).resolve().parents[2] / "docs/task-reference.md"


def test_the_committed_file_is_up_to_date() -> None:
    assert FILE.read_text(encoding="utf-8") == reference(), "run `make docs` and commit docs/task-reference.md"


def test_every_key_has_a_description() -> None:
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    bare = [line for line in rows if line.rstrip().endswith("|  |")]
    assert len(rows) > 100
    assert not bare, bare


def test_every_section_is_there() -> None:
    text = reference()
    for name in Task.model_fields:
        assert f"| `{name}` |" in text
    for heading in ("## `data`", "## `evaluate.decodings.NAME`", "## `model.lora`", "### `whitespace`"):
        assert f"\n{heading}\n" in text
