"""Several processes, one order: results, errors, and helpers that die."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openautoglm.core.errors import ResourceError, RuleError
from openautoglm.data.workers import Builder, spread

FACTORY = """
import os, signal, time
from openautoglm.core.errors import RuleError

def squaring(mine):
    def work(job):
        helping = os.getpid() != mine
        if job == "fail" and helping:
            raise RuleError("no", where="row 7", remedy="yes")
        if job == "die" and helping:
            os.kill(os.getpid(), signal.SIGKILL)
        if isinstance(job, str):
            time.sleep(0.05)
            return helping
        return job * job
    return work
"""
Run = Callable[[list[Any], int], list[Any]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Spread jobs over processes which import their function from a file."""
    (tmp_path / "squares_for_workers.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    builder = Builder("squares_for_workers:squaring", (os.getpid(),))
    return lambda jobs, processes: list(spread(iter(jobs), builder, processes))


@pytest.mark.parametrize("jobs", [[], [3], list(range(50))])
def test_results_come_in_the_order_of_the_jobs(run: Run, jobs: list[int]) -> None:
    assert run(jobs, 2) == [job * job for job in jobs]


@pytest.mark.slow
def test_helpers_do_take_part(run: Run) -> None:
    done = run(["slow"] * 150, 2)
    assert any(done)
    assert not all(done)


@pytest.mark.slow
def test_an_error_of_a_helper_is_the_callers_error(run: Run) -> None:
    with pytest.raises(RuleError, match="row 7: no"):
        run(["fail"] * 400, 2)


@pytest.mark.slow
def test_a_helper_that_dies_is_an_error_not_a_hang(run: Run) -> None:
    with pytest.raises(ResourceError, match="ended unexpectedly"):
        run(["die"] * 400, 2)
