"""A student trained by ``autoglm run``: killed in its middle, it ends as a whole run does."""

from __future__ import annotations

import hashlib
import signal
import time
from pathlib import Path

import pytest

from command_line import autoglm, start
from openautoglm.core.files import read_json
from tiny_task import write_task

MODEL = "runs/tiny/bundle/model.safetensors"
MORE = "distill: {teacher: %s, alpha: 0.6, top_k: 8, features: 0.2, responses: {use: only, " \
       "decoding: {num_beams: 2, n: 2}}}"


@pytest.mark.slow
def test_killed_in_its_middle_a_student_ends_as_a_whole_one_does(tmp_path: Path) -> None:
    for name in ("teacher", "whole", "killed"):
        (tmp_path / name).mkdir()
    assert autoglm("run", write_task(tmp_path / "teacher", passes=40), "--until", "train").returncode == 0
    teacher, tasks = tmp_path / "teacher/runs/tiny/train/model", {}
    for name in ("whole", "killed"):
        tasks[name] = write_task(tmp_path / name, passes=5, more=MORE % teacher)
        text = tasks[name].read_text(encoding="utf-8").replace("hidden_size: 16", "hidden_size: 8")
        tasks[name].write_text(text.replace("tokenizer: {vocab_size: 300}", ""), encoding="utf-8")
    done = autoglm("run", tasks["whole"])
    assert done.returncode == 0, done.stderr
    assert "begins with weights of the teacher" in done.stderr
    process = start("run", tasks["killed"])
    seen, end = tmp_path / "killed/runs/tiny/train/checkpoints/step-00000010", time.monotonic() + 300
    while not seen.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert seen.exists()
    assert not (tmp_path / "killed" / MODEL).exists()
    done = autoglm("run", tasks["killed"])
    assert done.returncode == 0, done.stderr
    assert "train: going on where it stopped" in done.stderr
    one, other = (hashlib.sha256((tmp_path / name / MODEL).read_bytes()).hexdigest() for name in ("whole", "killed"))
    assert one == other
    card = read_json(tmp_path / "killed/runs/tiny/bundle/autoglm.json")
    assert card["recipe"]["distill"]["alpha"] == 0.6
