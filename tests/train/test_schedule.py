"""Learning rates and the average's decay over a run."""

from __future__ import annotations

import pytest

from openautoglm.train.schedule import ema_decay, learning_rate
from openautoglm.train.settings import TrainSettings


@pytest.mark.parametrize(("schedule", "middle", "end"), [
    ("cosine", 0.55, 0.1), ("wsd", 1.0, 0.1), ("constant", 1, 1)])
def test_shape(schedule, middle, end):
    settings = TrainSettings(lr=1.0, schedule=schedule, warmup_share=0.2, final_lr_ratio=0.1)
    assert learning_rate(settings, 0.1) == pytest.approx(0.5)
    assert learning_rate(settings, 0.2) == pytest.approx(1.0)
    assert learning_rate(settings, 0.6) == pytest.approx(middle)
    assert learning_rate(settings, 1.0) == pytest.approx(end)


def test_wsd_falls_over_its_share_only():
    settings = TrainSettings(lr=1.0, schedule="wsd", decay_share=0.25)
    assert learning_rate(settings, 0.75) == pytest.approx(1.0)
    assert learning_rate(settings, 0.875) == pytest.approx(0.5)


def test_the_average_forgets_the_start():
    settings = TrainSettings(ema_decay=0.99)
    assert ema_decay(settings, 1) == pytest.approx(2 / 11)
    assert ema_decay(settings, 10_000) == 0.99
