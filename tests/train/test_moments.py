"""Optimiser states of eight bits, and in files: close to fp32, a quarter of the size, resumed bit for bit."""

from __future__ import annotations

import json

import pytest
import torch
from train_models import random_store, tiny_model

from openautoglm.train.loop import Run, train
from openautoglm.train.moments import BLOCK, decode_mean, decode_square, encode_mean, encode_square
from openautoglm.train.settings import TrainSettings

STORE, VALID = random_store(12, 3), random_store(4, 2, seed=5)


def settings(**changes) -> TrainSettings:
    usual = {"passes": 6, "batch": 9, "lr": 0.01, "layout": "shared", "tensorboard": False}
    return TrainSettings(**(usual | changes))


def coded(kind: str, values: torch.Tensor, chances: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The values after a way through eight bits, and their codes."""
    scales = torch.empty(len(values) // BLOCK)
    codes = torch.empty(len(values), dtype=torch.int8 if kind == "mean" else torch.uint8)
    encode, decode = {"mean": (encode_mean, decode_mean), "square": (encode_square, decode_square)}[kind]
    encode(values.clone(), chances, codes, scales)
    return decode(codes, scales), codes


@pytest.mark.parametrize("kind", ["mean", "square"])
def test_codes_keep_the_greatest_and_are_near_elsewhere(kind):
    values = torch.randn(8 * BLOCK, generator=torch.Generator().manual_seed(0))
    values = values if kind == "mean" else values.square()
    back, codes = coded(kind, values, torch.full_like(values, 0.5))
    blocks, before = back.view(-1, BLOCK), values.view(-1, BLOCK)
    places = before.abs().argmax(1, keepdim=True)
    torch.testing.assert_close(blocks.gather(1, places), before.gather(1, places))
    assert codes.element_size() == 1
    large = values.abs() > 0.05
    ratio = back[large] / values[large]
    assert (ratio - 1).abs().max() < 0.06
    again, _ = coded(kind, back, torch.full_like(values, 0.5))
    torch.testing.assert_close(again, back)


@pytest.mark.parametrize("kind", ["mean", "square"])
def test_chances_make_the_code_right_on_average(kind):
    values = torch.full((BLOCK,), 0.3)
    values[0] = 1.0
    power, levels = (0.5, 127) if kind == "mean" else (0.25, 255)
    chances = torch.rand(200, BLOCK, generator=torch.Generator().manual_seed(1))
    found = torch.stack([coded(kind, values, row)[1].float() for row in chances])[:, 1:]
    assert float(found.mean()) == pytest.approx(0.3**power * levels, abs=0.02)
    assert len(found.unique()) == 2


def test_a_small_square_is_never_zero_and_zero_stays():
    values = torch.zeros(BLOCK)
    values[:3] = torch.tensor([1.0, 1e-20, 0.0])
    back, codes = coded("square", values, torch.zeros(BLOCK))
    assert codes[:3].tolist() == [255, 1, 0]
    assert back[1] > 0
    assert back[2] == 0
    zeros, _ = coded("mean", torch.zeros(BLOCK), torch.full((BLOCK,), 0.99))
    assert zeros.abs().max() == 0


def test_one_step_is_that_of_adamw():
    """The first moments are used before they are rounded: one step is exact."""
    models = {}
    for state in ("fp32", "8bit"):
        models[state] = tiny_model()
        next(iter(Run(models[state], STORE, None, settings(optimiser_state=state), None, None).steps()))
    for one, other in zip(models["fp32"].parameters(), models["8bit"].parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=2e-6)


def test_training_is_close_to_fp32_in_a_quarter_of_the_room():
    found = {}
    for state in ("fp32", "8bit"):
        run = Run(tiny_model(), STORE, VALID, settings(optimiser_state=state), None, None)
        losses = [event.loss for event in run.steps()]
        found[state] = losses, sum(value.nbytes for value in run.optim.moments.tensors().values())
    assert found["8bit"][0] == pytest.approx(found["fp32"][0], rel=0.05)
    assert found["8bit"][0] != found["fp32"][0]
    assert found["8bit"][0][-1] < 0.8 * found["8bit"][0][0]
    assert found["8bit"][1] < 0.27 * found["fp32"][1]


@pytest.mark.parametrize("changes", [
    {"optimiser_state": "8bit"}, {"offload": True}, {"optimiser_state": "8bit", "offload": True},
    {"optimiser_state": "8bit", "freeze": {"layers": 1, "unfreeze": {"begin": 0.2, "end": 0.5}}}],
    ids=["8bit", "offload", "both", "8bit-gradual"])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, changes):
    s = settings(checkpoint_every_steps=4, ema_decay=0.9, **changes)
    whole, resumed = tiny_model(), tiny_model()
    list(train(whole, STORE, VALID, s, tmp_path / "whole"))
    steps = train(tiny_model(), STORE, VALID, s, tmp_path / "cut")
    for _ in range(11):
        next(steps)
    steps.close()
    list(train(resumed, STORE, VALID, s, tmp_path / "cut"))
    losses = [[json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
              for name in ("whole", "cut")]
    assert losses[0] == losses[1]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_states_in_files_are_those_in_memory(tmp_path):
    losses = []
    for offload in (False, True):
        run = Run(tiny_model(), STORE, None, settings(offload=offload), tmp_path / str(offload), None)
        losses.append([event.loss for event in run.steps()])
        files = list((tmp_path / str(offload)).glob("moments/exp_avg*.bin"))
        assert bool(files) is offload
        if offload:
            learnt = {key: flat.nbytes for key, flat in run.optim.flats.items()}
            assert sum(file.stat().st_size for file in files) == 2 * sum(learnt.values())
    assert losses[0] == losses[1]
    list(train(tiny_model(), STORE, None, settings(offload=True), tmp_path / "ended"))
    assert not (tmp_path / "ended" / "moments").exists()
