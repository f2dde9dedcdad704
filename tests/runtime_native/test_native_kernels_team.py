"""The team of threads: it wakes, it sleeps, it refuses what it cannot do."""

from __future__ import annotations

import os
import threading
import time
from types import ModuleType

import native_reference
import numpy as np
import pytest

from openautoglm.runtime import native


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """The extension."""
    found = native.native_module()
    if found is None:
        pytest.skip(native.why_not())
    return found


def test_no_wake_up_is_lost_however_long_the_team_slept(module: ModuleType) -> None:
    team = module.Team(3)
    x, out = np.arange(3000, dtype=np.float32).reshape(3, 1000), np.empty((3, 1000), np.float32)
    for pause in (0, 1e-5, 5e-5, 1e-4, 1e-3):  # around the moment at which threads go to sleep
        for turn in range(40):
            if pause:
                time.sleep(pause)
            team.gather_rows(x, np.array([2, 1, turn % 3], np.int32), out)
            np.testing.assert_array_equal(out, x[[2, 1, turn % 3]])


def test_an_idle_team_sleeps(module: ModuleType) -> None:
    team = module.Team(3)
    team.meet(100)
    time.sleep(0.1)
    begun = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - begun < 0.15  # two threads that spun would have taken the processors' whole time


def test_barriers_hold_with_more_threads_than_processors(module: ModuleType) -> None:
    module.Team(2 * (os.cpu_count() or 1) + 1).meet(200)


def test_calls_from_many_threads_take_turns(module: ModuleType) -> None:
    team = module.Team(2)
    x = np.random.default_rng(0).normal(size=(4, 600)).astype(np.float32)
    weight = np.ones(600, np.float32)
    expected, results = np.empty_like(x), [np.empty_like(x) for _ in range(4)]
    team.rms_norm(x, weight, 1e-5, expected)

    def work(out: np.ndarray) -> None:
        for _ in range(50):
            team.rms_norm(x, weight, 1e-5, out)

    threads = [threading.Thread(target=work, args=(out,)) for out in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for out in results:
        np.testing.assert_array_equal(out, expected)


def test_a_forked_child_is_refused_and_ends(module: ModuleType) -> None:
    team = module.Team(2)
    team.meet(1)
    child = os.fork()
    if child == 0:  # nothing of pytest may run here
        try:
            team.meet(1)
        except RuntimeError as error:
            os._exit(7 if "before this process was forked" in str(error) else 8)
        os._exit(9)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    team.meet(1)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
def test_threads_settle_where_they_are_told(module: ModuleType) -> None:
    before = set(os.listdir("/proc/self/task"))
    allowed = sorted(os.sched_getaffinity(0))
    team = module.Team(2, "", [allowed[-1]], 3)
    own = set(os.listdir("/proc/self/task")) - before
    team.meet(1)
    assert len(own) == 1
    thread = int(own.pop())
    assert os.sched_getaffinity(thread) == {allowed[-1]}
    if os.getpriority(os.PRIO_PROCESS, 0) <= 3:  # else it would take a right to be nicer to oneself
        assert os.getpriority(os.PRIO_PROCESS, thread) == 3
    assert sorted(os.sched_getaffinity(0)) == allowed


def test_sizes_of_teams(module: ModuleType) -> None:
    assert module.Team().threads == 1
    for threads in (0, -1, 5000):
        with pytest.raises(ValueError, match="1 to 1024 threads"):
            module.Team(threads)


def test_the_limits_of_the_processor_can_be_measured(module: ModuleType) -> None:
    for isa in module.supported_isas():
        team = module.Team(2, isa)
        assert team.burn(True, 10_000) >= 20_000
        assert team.burn(False, 10_000) >= 20_000
        assert team.walk(np.zeros(100_003, np.uint8)) == 0


@pytest.mark.parametrize("format", ["fp32", "bf16", "int8", "int4"])
def test_panels_that_are_taken_in_turn_are_all_taken_once(module: ModuleType, format: str) -> None:
    rng = np.random.default_rng(3)
    weight = module.Packed(native_reference.make_weight(rng, format, 20 * 32 + 5, 512, 0).packed)  # type: ignore[arg-type]
    for rows in (1, 5, 700):  # of which 700 are several chunks
        x = rng.normal(size=(rows, 512)).astype(np.float32)
        expected = np.full((rows, 645), np.nan, np.float32)
        module.Team(1).linear(weight, x, expected)
        assert np.isfinite(expected).all()
        for threads in (2, 3, 7):
            out = np.full_like(expected, np.nan)
            module.Team(threads).linear(weight, x, out)
            np.testing.assert_array_equal(out, expected)
