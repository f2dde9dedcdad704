"""The learning rate as a function of progress through the run."""

from __future__ import annotations

import math

from openautoglm.train.settings import TrainSettings


def learning_rate(settings: TrainSettings, progress: float) -> float:
    """The rate at `progress` (0 to 1, counted at the end of the step).

    Linear warm-up, then cosine (Loshchilov and Hutter 2017), or constant with a linear end (warm-up, stable,
    decay; Hu et al. 2024), or constant.
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < settings.warmup_share:
        return settings.lr * progress / settings.warmup_share
    floor = settings.final_lr_ratio
    share = 1.0
    if settings.schedule == "cosine":
        done = (progress - settings.warmup_share) / (1 - settings.warmup_share)
        share = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
    elif settings.schedule == "wsd":
        share = floor + (1 - floor) * min(1.0, (1 - progress) / settings.decay_share)
    return settings.lr * share


def ema_decay(settings: TrainSettings, step: int) -> float:
    """Decay of the averaged weights after `step` steps (from 1): small at first, to forget the start."""
    return min(settings.ema_decay or 0.0, (1 + step) / (10 + step))
