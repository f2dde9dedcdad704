"""A finished tiny run, shared by the tests of this folder; `tiny_task` and `command_line` become importable."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a task that has run to its end: task.yaml, runs/tiny, out.zip."""
    from command_line import autoglm
    from tiny_task import write_task

    folder = tmp_path_factory.mktemp("finished")
    done = autoglm("run", write_task(folder, passes=2))
    assert done.returncode == 0, done.stderr
    return folder
