"""Small steps are done by one thread where that is measured to be faster; values do not depend on who does them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from runtime_models import Reader, random_ids

from openautoglm.runtime.load import load_program

PAGES = 24


class Clock:
    """Steps whose times are made up: of the team and alone, by the number of rows."""

    def __init__(self, module: ModuleType) -> None:
        self.crew = module.Crew()
        self.team_s: dict[int, float] = {}
        self.alone_s: dict[int, float] = {}

    def ways(self, rows: int, steps: int) -> list[bool]:
        """Do steps; whether each was done alone."""
        found = []
        for _ in range(steps):
            alone = self.crew.alone(rows)
            self.crew.took(rows, alone, (self.alone_s if alone else self.team_s)[rows])
            found.append(alone)
        return found


def test_both_ways_are_tried_and_the_faster_one_is_kept(extension: ModuleType) -> None:
    clock = Clock(extension)
    clock.team_s, clock.alone_s = {1: 3.0, 64: 1.0}, {1: 1.0, 64: 3.0}
    assert clock.ways(1, 12) == [False] * 6 + [True] * 6
    assert all(clock.ways(1, 100))
    assert not any(clock.ways(64, 6) + clock.ways(64, 112)[6:])  # another size is judged by itself


def test_the_other_way_is_tried_again_and_taken_when_times_have_changed(extension: ModuleType) -> None:
    clock = Clock(extension)
    clock.team_s, clock.alone_s = {1: 10.0}, {1: 1.0}
    clock.ways(1, 12)
    ways = clock.ways(1, 100_000)
    tried_s = 10.0 * ways.count(False)
    assert 0 < tried_s < 0.03 * (tried_s + ways.count(True))  # a few hundredths of the time
    clock.team_s = {1: 0.5}
    assert clock.ways(1, 10_000)[-100:] == [False] * 100


def test_a_single_slow_step_changes_nothing(extension: ModuleType) -> None:
    clock = Clock(extension)
    clock.team_s, clock.alone_s = {2: 2.0}, {2: 1.0}
    clock.ways(2, 20)
    for _ in range(2):
        clock.crew.took(2, True, 50.0)
    assert clock.crew.alone(2)


def test_steps_alone_give_the_bytes_of_the_team(checkpoint: Any) -> None:
    fixed, measured = (load_program(checkpoint[0], "native", cache="fp32", pages=PAGES, threads=2) for _ in range(2))
    native: Any = measured
    native.prepared.lowered.native.measure_threads()
    ids = random_ids(checkpoint[1], 40)
    readers = [Reader(program, range(PAGES)) for program in (fixed, measured)]
    prompts = [reader.step({"a": ids[:10], "b": ids[:7]}) for reader in readers]
    assert all(np.array_equal(prompts[0][name], prompts[1][name]) for name in "ab")
    for token in ids[10:]:
        one, other = (reader.step({"a": [token], "b": [token]}) for reader in readers)
        assert all(np.array_equal(one[name], other[name]) for name in "ab")
    assert 6 <= native.prepared.lowered.native.steps_alone <= 24  # of thirty; the first six are the team's
