"""A killed search goes on as if nothing had happened: same points, same prunings, same values."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from search_synthetic import CONSTRAINTS, MAX_TOKENS, SETTINGS, objective, space

from openautoglm.core.errors import SearchError
from openautoglm.search.fidelity import TokenHyperband
from openautoglm.search.records import Outcome, SearchResult
from openautoglm.search.session import Session
from openautoglm.search.settings import SearchSettings
from openautoglm.search.space import Float, Point, Space
from openautoglm.search.storage import alone
from openautoglm.search.study import Report, search

TRIALS = SETTINGS.model_copy(update={"trials": 26})


class Killed(BaseException):
    """What stands for a SIGKILL inside this process."""


def run(folder: Path) -> SearchResult:
    return search(space(), objective, TRIALS, folder, max_tokens=MAX_TOKENS, constraints=CONSTRAINTS,
                  maximize=True)


def sequence(result: SearchResult) -> list[Any]:
    """What must not depend on interruptions."""
    return [(trial.state, trial.point, trial.value, trial.metrics, trial.constraints, trial.reports,
             trial.error) for trial in result.trials if trial.state != "interrupted"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        return sequence(run(tmp_path_factory.mktemp("whole")))


def test_the_model_proposes_within_this_many_trials(whole: list[Any]) -> None:
    """Else the tests of resuming would not cover TPE: a bracket must outgrow its start-up trials by some."""
    pruner = TokenHyperband(min_tokens=100, max_tokens=MAX_TOKENS, reduction_factor=3, brackets=2,
                            interrupted=[])
    study = optuna.create_study(study_name=SETTINGS.name)
    trials = [optuna.trial.create_trial(value=0.0) for _ in whole]
    for number, trial in enumerate(trials):
        trial.number = number
    counts = Counter(pruner._get_bracket_id(study, trial) for trial in trials)
    assert counts[0] > SETTINGS.startup_trials + 5


@pytest.mark.slow
@pytest.mark.parametrize("every", [37, 53, 149])
def test_deaths_at_any_write_leave_no_trace(every: int, whole: list[Any], tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """Each life ends at its n-th sync; nothing is written after it, as after a SIGKILL."""
    lives, writes = 0, 0

    def dying(*_: object) -> None:
        nonlocal writes
        writes += 1
        if writes >= every:
            raise Killed

    append = JournalFileBackend.append_logs

    def written_by_the_living(backend: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        if writes >= every:
            raise Killed
        append(backend, logs)

    monkeypatch.setattr(JournalFileBackend, "append_logs", written_by_the_living)
    monkeypatch.setattr(os, "fsync", dying)
    while True:
        lives, writes = lives + 1, 0
        try:
            result = run(tmp_path)
            break
        except Killed:
            assert lives < 200
    assert lives > 3
    assert sequence(result) == whole
    assert any(trial.state == "interrupted" for trial in result.trials)


@pytest.mark.slow
def test_every_trial_may_die_once(whole: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each trial dies at its second report, after its first rung, and is run again in another life."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    died: list[Point] = []

    def mortal(point: Point, report: Report) -> Outcome:
        reports = 0

        def counted(tokens: int, loss: float) -> None:
            nonlocal reports
            reports += 1
            if point not in died and reports == 2:
                died.append(point)
                raise Killed
            report(tokens, loss)

        return objective(point, counted)

    monkeypatch.setattr(Session, "interrupt", only_when_resuming(Session.interrupt))
    while True:
        try:
            result = search(space(), mortal, TRIALS, tmp_path, max_tokens=MAX_TOKENS, constraints=CONSTRAINTS)
            break
        except Killed:
            assert len(died) < 100
    assert len(died) == sum(len(reports) > 1 for *_, reports, _ in whole) > 5
    assert sequence(result) == whole


def only_when_resuming(interrupt: Callable[[Session, int], None]) -> Callable[[Session, int], None]:
    """A process that is killed marks nothing: the next one does."""
    def called(session: Session, number: int) -> None:
        if not isinstance(sys.exc_info()[1], Killed):
            interrupt(session, number)
    return called


@pytest.mark.slow
def test_sigkill_of_the_process_leaves_no_trace(whole: list[Any], tmp_path: Path) -> None:
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_search_resume
from pathlib import Path
reports, plain = 0, test_search_resume.objective
def objective(point, report):
    def counted(tokens, loss):
        global reports
        reports += 1
        report(tokens, loss)
        if reports == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
    return plain(point, counted)
test_search_resume.objective = objective
os.fsync = lambda handle: None
test_search_resume.run(Path(sys.argv[2]))
"""
    for reports, died in ((25, True), (14, True), (100_000, False)):
        ended = subprocess.run([sys.executable, "-c", code, str(reports), str(tmp_path)], capture_output=True,
                               check=False, timeout=240)
        assert ended.returncode == (-signal.SIGKILL if died else 0), ended.stderr.decode()
    stored = json.loads((tmp_path / "trials.json").read_text(encoding="utf-8"))["trials"]
    assert sum(trial["state"] == "interrupted" for trial in stored) == 2
    kept = [(trial["state"], trial["point"], trial["value"])
            for trial in stored if trial["state"] != "interrupted"]
    assert kept == [(state, point, value) for state, point, value, *_ in whole]


def test_ctrl_c_marks_the_trial_and_resumes(whole: list[Any], tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    calls = 0

    def interrupted(point: Point, report: Report) -> Outcome:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return objective(point, report)

    with pytest.raises(KeyboardInterrupt):
        search(space(), interrupted, TRIALS, tmp_path, max_tokens=MAX_TOKENS, constraints=CONSTRAINTS)
    told = json.loads((tmp_path / "trials.json").read_text(encoding="utf-8"))["trials"]
    assert told[-1]["state"] == "interrupted"
    assert sequence(run(tmp_path)) == whole


def small(folder: Path, **changes: Any) -> SearchResult:
    settings = SearchSettings(**{"trials": 3, **changes})
    return search(Space({"x": Float(0.0, 1.0)}), lambda point, report: Outcome(float(point["x"])), settings,
                  folder, max_tokens=10)


def test_another_search_in_the_folder_is_refused(tmp_path: Path) -> None:
    small(tmp_path)
    with pytest.raises(SearchError, match="another space, seed or token range"):
        small(tmp_path, seed=1)
    with pytest.raises(SearchError, match="another space, seed or token range"):
        small(tmp_path, space={"x": (0.0, 0.5)})
    assert len(small(tmp_path, trials=4).trials) == 4


def test_a_missing_random_state_is_refused(tmp_path: Path) -> None:
    small(tmp_path)
    (tmp_path / "state.json").unlink()
    with pytest.raises(SearchError, match="random state is missing"):
        small(tmp_path, trials=4)


def test_a_torn_last_line_of_the_journal_is_dropped(tmp_path: Path) -> None:
    expected = small(tmp_path / "whole", trials=5)
    small(tmp_path / "torn")
    with (tmp_path / "torn" / "journal.log").open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    result = small(tmp_path / "torn", trials=5)
    assert [trial.point for trial in result.trials] == [trial.point for trial in expected.trials]


def test_two_processes_do_not_search_in_one_folder(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(SearchError, match="another process"):
        small(tmp_path)
    assert small(tmp_path).best
