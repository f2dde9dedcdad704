"""Masked weights stay zero through updates, averages and checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from train_models import random_store, tiny_model

from openautoglm.core.errors import CheckpointError, TrainError
from openautoglm.train.loop import Run, train
from openautoglm.train.settings import TrainSettings

NAME = "model.layers.1.mlp.down_proj.weight"


def settings(**changes) -> TrainSettings:
    usual = {"passes": 2, "batch": 8, "lr": 0.05, "tensorboard": False, "checkpoint_every_steps": 1}
    return TrainSettings(**(usual | changes))


def masks(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(weight.shape, generator=generator) > 0.5
            for name, weight in tiny_model().named_parameters() if "proj.weight" in name}


@pytest.mark.parametrize("ema_decay", [None, 0.9], ids=["last", "averaged"])
def test_they_are_zero_after_every_step_and_at_the_end(tmp_path: Path, ema_decay: float | None) -> None:
    model, store, mine = tiny_model(), random_store(16, 1), masks()
    before = dict(tiny_model().named_parameters())[NAME]
    steps = train(model, store, store, settings(ema_decay=ema_decay), tmp_path, masks=mine)
    for number, _event in enumerate(steps):
        weights = dict(model.named_parameters())
        assert not any(bool(weights[name][~mask].count_nonzero()) for name, mask in mine.items())
        if number == 1:
            break
    steps.close()
    resumed = tiny_model()
    list(train(resumed, store, store, settings(ema_decay=ema_decay), tmp_path, masks=mine))
    weights = dict(resumed.named_parameters())
    assert not any(bool(weights[name][~mask].count_nonzero()) for name, mask in mine.items())
    assert (weights[NAME] - before)[mine[NAME]].abs().min() > 0


def test_their_gradients_count_nowhere() -> None:
    store, mine = random_store(16, 1), masks()
    run = Run(tiny_model(), store, None, settings(), None, None, masks=mine)
    next(iter(run.steps()))
    gradients = {name: parameter.grad for name, parameter in run.model.named_parameters()}
    assert not any(bool(gradients[name][~mask].count_nonzero()) for name, mask in mine.items())
    kept = run.optim.tensors()
    run.masked.after_update()
    assert all(torch.equal(tensor, kept[key]) for key, tensor in run.optim.tensors().items())


def test_other_masks_are_another_run(tmp_path: Path) -> None:
    store = random_store(16, 1)
    list(train(tiny_model(), store, None, settings(), tmp_path, masks=masks()))
    for other in (masks(1), None):
        with pytest.raises(CheckpointError, match="masks is"):
            list(train(tiny_model(), store, None, settings(), tmp_path, masks=other))


def test_a_mask_that_fits_nothing_is_refused() -> None:
    for wrong in ({"model.nothing": torch.ones(2, 2, dtype=torch.bool)}, {NAME: torch.ones(2, 2, dtype=torch.bool)}):
        with pytest.raises(TrainError, match="fits no parameter"):
            Run(tiny_model(), random_store(), None, settings(), None, None, masks=wrong)
