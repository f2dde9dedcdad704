"""A run with self-distillation, through the command: finished, killed in its middle, refused."""

from __future__ import annotations

import hashlib
import signal
import time
from pathlib import Path

import pytest

from command_line import autoglm, start
from openautoglm.core.files import read_json
from tiny_task import write_task

MORE = "self_distill: {enabled: true, passes: 12, decoding: {num_beams: 2, n: 2}}"
MODEL = "runs/tiny/self_distill/model/model.safetensors"


@pytest.mark.slow
def test_killed_in_its_middle_it_ends_as_a_whole_run_does(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        task = write_task(folder, passes=25, checkpoint=10, more=MORE)
    assert autoglm("run", whole / "task.yaml").returncode == 0
    process = start("run", task)
    seen, end = killed / "runs/tiny/self_distill/checkpoints/step-00000010", time.monotonic() + 300
    while not seen.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert seen.exists()
    assert not (killed / MODEL).exists()
    done = autoglm("run", task)
    assert done.returncode == 0, done.stderr
    assert "self_distill: going on where it stopped" in done.stderr
    one, other = (hashlib.sha256((folder / MODEL).read_bytes()).hexdigest() for folder in (whole, killed))
    assert one == other
    card = read_json(killed / "runs/tiny/bundle/autoglm.json")
    assert card["recipe"]["self_distill"]["enabled"] is True
    trained = (killed / "runs/tiny/train/model/model.safetensors").read_bytes()
    assert hashlib.sha256(trained).hexdigest() != one
    assert "self-distillation" in (killed / "runs/tiny/report.html").read_text(encoding="utf-8")


def test_a_choice_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    done = autoglm("check", write_task(tmp_path, more="self_distill: {choose: best}"))
    assert done.returncode == 2
    assert "self_distill.choose" in done.stderr + done.stdout
