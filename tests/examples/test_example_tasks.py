"""The task files among the examples are valid, and take their data from where they are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from openautoglm.pipeline.task import load_task

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize("name", ["e2e", "quickstart", "shakespeare", "poetry"])
def test_a_task_is_valid_and_finds_its_data_by_the_environment(name: str) -> None:
    task = load_task(EXAMPLES / name / "task.yaml", {"OPENAUTOGLM_DATA": "/data", "QUICKSTART_DATA": "/data"})
    assert task.name == name
    assert all(path.startswith("/data/") for path in task.data.train)
