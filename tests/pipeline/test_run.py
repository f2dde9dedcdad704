"""Walking stages: skips, changes, resumption, the lock."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from openautoglm.core.errors import DataError, ResourceError, TaskError
from openautoglm.pipeline.context import Run
from openautoglm.pipeline.run import Walk, walk
from openautoglm.pipeline.state import RunState, locked
from openautoglm.pipeline.task import make_task


@dataclass
class Fake:
    """A stage that writes its name."""

    name: str
    needs: tuple[str, ...] = ()
    format: int = 1
    value: Any = 0
    ran: int = 0
    fails: bool = False
    wiped: list[Path] = field(default_factory=list)

    def inputs(self, run: Run) -> Any:
        return self.value

    def results(self, run: Run) -> Sequence[Path]:
        return (run.folder / self.name,)

    def run(self, run: Run) -> dict[str, Any]:
        self.ran += 1
        if self.fails:
            raise DataError("broken")
        (run.folder / self.name).write_text("done")
        return {"value": self.value}

    def wipe(self, run: Run, *, fresh: bool) -> Sequence[Path]:
        self.wiped.append(run.folder / self.name)
        return (run.folder / self.name,)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.of(make_task({"data": {"train": "a.csv", "source": "s", "target": "t"}}), tmp_path / "run")


@pytest.fixture
def stages() -> list[Fake]:
    return [Fake("a"), Fake("b", ("a",)), Fake("c", ("b",)), Fake("d")]


def test_a_second_walk_skips_everything_and_says_so(run: Run, stages: list[Fake]) -> None:
    said: list[str] = []
    assert walk(run, stages, Walk()) == dict.fromkeys("abcd", "ran")
    assert walk(run, stages, Walk(), say=said.append) == dict.fromkeys("abcd", "skipped")
    assert all("skipped" in line for line in said)
    assert run.state.finished("b") is not None


def test_a_change_reaches_what_depends_on_it_and_nothing_else(run: Run, stages: list[Fake]) -> None:
    walk(run, stages, Walk())
    stages[1].value = 1
    assert walk(run, stages, Walk()) == {"a": "skipped", "b": "ran", "c": "ran", "d": "skipped"}
    assert stages[1].wiped
    assert not stages[0].wiped


def test_a_failed_stage_goes_on_without_being_wiped(run: Run, stages: list[Fake]) -> None:
    stages[1].fails = True
    with pytest.raises(DataError):
        walk(run, stages, Walk())
    stages[1].fails = False
    said: list[str] = []
    assert walk(run, stages, Walk(), say=said.append)["a"] == "skipped"
    assert "going on where it stopped" in said[1]
    assert not stages[1].wiped


def test_lost_results_are_made_again(run: Run, stages: list[Fake]) -> None:
    walk(run, stages, Walk())
    (run.folder / "d").unlink()
    assert walk(run, stages, Walk())["d"] == "ran"


def test_from_until_and_fresh(run: Run, stages: list[Fake]) -> None:
    assert walk(run, stages, Walk(until="b")) == {"a": "ran", "b": "ran"}
    assert walk(run, stages, Walk(from_="b")) == {"a": "skipped", "b": "ran", "c": "ran", "d": "ran"}
    assert set(walk(run, stages, Walk(fresh=True)).values()) == {"ran"}
    with pytest.raises(TaskError, match="no stage 'x'"):
        walk(run, stages, Walk(from_="x"))


def test_two_processes_never_share_a_folder(run: Run, stages: list[Fake]) -> None:
    with locked(run.folder), pytest.raises(ResourceError, match=str(os.getpid())):
        walk(run, stages, Walk())


def test_hashes_are_read_again_only_after_a_change(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text("one")
    state = RunState(tmp_path)
    first = state.file_hashes([data])
    stat = data.stat()
    data.write_text("two")
    os.utime(data, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert RunState(tmp_path).file_hashes([data]) == first  # same size and time: the cached hash
    os.utime(data, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert RunState(tmp_path).file_hashes([data]) != first
    with pytest.raises(DataError, match="cannot be read"):
        state.file_hashes([tmp_path / "none"])


def test_a_damaged_state_is_named(run: Run, stages: list[Fake]) -> None:
    walk(run, stages, Walk())
    (run.folder / "state.json").write_text("{")
    with pytest.raises(TaskError, match="state of this run"):
        walk(run, stages, Walk())
    assert set(walk(run, stages, Walk(fresh=True)).values()) == {"ran"}
