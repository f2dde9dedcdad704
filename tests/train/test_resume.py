"""Exact resume: after SIGKILL at any moment the resumed run yields the losses of a whole one, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from train_models import random_store, tiny_model

from openautoglm.core.errors import CheckpointError
from openautoglm.train.loop import train
from openautoglm.train.settings import TrainSettings

SETTINGS = {"passes": 5, "batch": 8, "row_tokens": 48, "lr": 0.01, "layout": "shared", "ema_decay": 0.9,
            "label_smoothing": 0.1, "accumulation": 2, "checkpoint_every_steps": 3, "tensorboard": False}
WORKER = """
import os, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from test_resume import full_run
for _ in sys.stdin:  # each line starts a run in a child, so that the imports are paid once
    child = os.fork()
    if not child:
        print("child", os.getpid(), flush=True)
        for event in full_run(Path(sys.argv[1])):
            print(event.step, flush=True)
            time.sleep(0.02)
        os._exit(0)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


def full_run(folder: Path | None, **changes):
    return train(tiny_model(attention_dropout=0.1), random_store(12, 3), random_store(4, 2, seed=5),
                 TrainSettings(**(SETTINGS | changes)), folder)


def recorded(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in ("step", "loss", "nll", "lr", "grad_norm", "valid_loss", "best")}
            for line in lines]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def start(folder: Path) -> subprocess.Popen[str]:
    paths = [str(Path(__file__).parent), *sys.path]
    return subprocess.Popen([sys.executable, "-c", WORKER, str(folder)], stdout=subprocess.PIPE, text=True,
                            stdin=subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)})


@pytest.mark.slow
def test_killed_anywhere_resumes_bit_for_bit(tmp_path):
    list(full_run(tmp_path / "whole"))
    chance = random.Random()
    with start(tmp_path / "killed") as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        for _ in range(2):
            print("run", file=worker.stdin, flush=True)
            child = int(worker.stdout.readline().removeprefix("child "))
            assert worker.stdout.readline().strip().isdigit(), "it has made no step"
            time.sleep(chance.uniform(0, 0.4))
            os.kill(child, signal.SIGKILL)
            while worker.stdout.readline() != "ended\n":
                pass
        worker.stdin.close()
    list(full_run(tmp_path / "killed"))
    assert recorded(tmp_path / "killed") == recorded(tmp_path / "whole")
    assert [line["step"] for line in recorded(tmp_path / "killed")] == list(range(1, 21))


def test_a_closed_run_goes_on_with_the_same_losses_and_weights(tmp_path):
    whole = tiny_model(attention_dropout=0.1)
    args = (random_store(12, 3), random_store(4, 2, seed=5), TrainSettings(**SETTINGS))
    list(train(whole, *args, tmp_path / "whole"))
    steps = train(tiny_model(attention_dropout=0.1), *args, tmp_path / "cut")
    for _ in range(8):
        next(steps)
    steps.close()
    resumed = tiny_model(attention_dropout=0.1)
    assert next(iter(train(resumed, *args, tmp_path / "cut"))).step == 7
    list(train(resumed, *args, tmp_path / "cut"))
    assert recorded(tmp_path / "cut") == recorded(tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_finished_run_yields_nothing_and_restores_the_best(tmp_path):
    list(full_run(tmp_path))
    model = tiny_model(attention_dropout=0.1)
    fresh = [p.clone() for p in model.parameters()]
    again = list(train(model, random_store(12, 3), random_store(4, 2, seed=5), TrainSettings(**SETTINGS),
                       tmp_path))
    assert again == []
    assert not any(torch.equal(a, b) for a, b in zip(fresh, model.parameters(), strict=True))


def test_ctrl_c_checkpoints_and_says_how_to_resume(tmp_path):
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background
    steps = full_run(tmp_path)
    assert [next(steps).step for _ in range(5)] == [1, 2, 3, 4, 5]
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="same command again"):
        next(steps)
    assert (tmp_path / "checkpoints" / "step-00000005").is_dir()
    assert next(iter(full_run(tmp_path))).step == 6
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("changes", "named"), [
    ({"lr": 0.02}, "lr is 0.02, was 0.01"), ({"seed": 3}, "seed")])
def test_a_checkpoint_of_another_run_is_refused(tmp_path, changes, named):
    steps = full_run(tmp_path, checkpoint_every_steps=1)
    for _ in range(3):
        next(steps)
    steps.close()
    with pytest.raises(CheckpointError, match=named):
        next(iter(full_run(tmp_path, **changes)))
    assert next(iter(full_run(tmp_path, keep=5, checkpoint_every_minutes=None))).step >= 3


def test_other_data_and_damage_are_refused(tmp_path):
    list(full_run(tmp_path))
    with pytest.raises(CheckpointError, match="train data"):
        list(train(tiny_model(), random_store(12, 3, seed=9), random_store(4, 2, seed=5),
                   TrainSettings(**SETTINGS), tmp_path))
    newest = max((tmp_path / "checkpoints").iterdir()) / "tensors.safetensors"
    content = bytearray(newest.read_bytes())
    content[-3] ^= 1
    newest.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        list(full_run(tmp_path))


def test_only_the_newest_checkpoints_and_the_best_weights_stay(tmp_path):
    list(full_run(tmp_path, checkpoint_every_steps=1, keep=2))
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000019", "step-00000020"]
    assert len(list((tmp_path / "best").iterdir())) <= 2
