"""A finished tiny run, shared by the tests of this folder; `tiny_task` and `command_line` become importable."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], list[str]]:
    """Does a compression that is interrupted before its figures are written; tells the steps that it and later ones
    have made."""
    from openautoglm.pipeline.compressing import run as running

    steps: list[str] = []
    real = running.apply_step

    def counted(step: Any, *rest: Any) -> Any:
        steps.append(step.method)
        return real(step, *rest)

    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    def once(compress: Callable[[], Any]) -> list[str]:
        monkeypatch.setattr(running, "apply_step", counted)
        with monkeypatch.context() as patch:
            patch.setattr(running, "_with_figures", interrupt)
            with pytest.raises(KeyboardInterrupt):
                compress()
        return steps

    return once
