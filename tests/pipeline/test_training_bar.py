"""The bar of a training that goes on: what earlier sittings did is no part of its rate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openautoglm.core import progress
from openautoglm.data.tokens import store_from_ids
from openautoglm.pipeline.training import drive
from openautoglm.train import loop
from openautoglm.train.events import StepEvent
from openautoglm.train.settings import TrainSettings


class Clock:
    """A clock that tests move."""

    now = 50.0

    def __call__(self) -> float:
        return self.now


def event(step: int, tokens: int) -> StepEvent:
    return StepEvent(step, 1.0, 0.5, tokens, tokens, 1.0, 1.0, 0.1, 1.0, 100.0, 1.0, 1.0)


@pytest.mark.parametrize(("first", "rate"), [(1, 20 / 7), (91, 10 / 4)], ids=["new", "resumed"])
def test_the_rate_is_of_what_was_done_since_the_resumption(monkeypatch: pytest.MonkeyPatch, first: int, rate: float
                                                           ) -> None:
    clock, bars = Clock(), list[progress.Progress]()

    def steps(*_: Any, **__: Any) -> Iterator[StepEvent]:
        for number, seconds in ((first, 3), (first + 1, 4)):
            clock.now += seconds
            yield event(number, number * 10)

    class View(progress.Nothing):
        every_s = 0.0

        def show(self, bar: progress.Progress) -> None:
            bars.append(bar)

    monkeypatch.setattr(progress, "monotonic", clock)
    monkeypatch.setattr(progress, "_view", lambda *_: View())
    monkeypatch.setattr(loop, "train", steps)
    found = list(drive(None, store_from_ids([([1, 2, 3], 1)]), None, TrainSettings(passes=1), Path("."), label="train"))
    assert [one.step for one in found] == [first, first + 1]
    assert bars[-1].rate == pytest.approx(rate)
    assert bars[-1].done == (first + 1) * 10
