"""Packed weights of ``autoglm run``: in the bundle even after a kill -9 while they were written, and used by verbs."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import ENVIRONMENT, autoglm
from openautoglm.core.files import read_json, sha256_file
from openautoglm.runtime.native import native_module, why_not
from tiny_task import write_task

pytestmark = pytest.mark.slow
_KILLED = """
import os, signal
from openautoglm.cli.main import main
from openautoglm.runtime import native_load
write = native_load.write_packed
native_load.write_packed = lambda *given: (write(*given), os.kill(os.getpid(), signal.SIGKILL))
main()
"""


def test_a_run_killed_while_it_packs_goes_on_to_a_whole_bundle(tmp_path: Path) -> None:
    if native_module() is None:
        pytest.skip(why_not())
    task = write_task(tmp_path)
    text = task.read_text(encoding="utf-8").replace("hidden_size: 16", "hidden_size: 32, head_dim: 16")
    task.write_text(text.replace("{to: out.zip}", "{to: out.zip, packed: [stored, int8]}"), encoding="utf-8")
    run = tmp_path / "runs/tiny"
    killed = subprocess.run([sys.executable, "-c", _KILLED, "run", task], env=ENVIRONMENT, check=False, timeout=600)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in run.glob(".bundle.*.part/packed-*")] == ["packed-fp32.safetensors"]
    assert not (run / "bundle").exists()
    done = autoglm("run", task)
    assert done.returncode == 0, done.stderr
    assert "packed weights: packed-fp32.safetensors" in done.stderr
    assert not list(run.rglob("*.part"))
    files = read_json(run / "bundle/autoglm.json")["files"]
    names = {"packed-fp32.safetensors", "packed-int8-g32-fp32.safetensors"}
    assert names <= set(files)
    assert all(sha256_file(run / "bundle" / name) == files[name] for name in names)
    assert set(read_json(run / "report.json")["files"]) == set(files)
    assert "packed-int8-g32-fp32.safetensors" in (run / "report.html").read_text(encoding="utf-8")
    said = [autoglm("generate", bundle, "Alfa | Thai | hill | dear", "--target", "native", "--max-new-tokens", "6")
            for bundle in (run / "bundle", tmp_path / "out.zip")]
    assert said[0].returncode == 0, said[0].stderr
    assert said[0].stdout == said[1].stdout
    assert "packed" not in said[0].stderr
    scored = autoglm("evaluate", run / "bundle", "--data", tmp_path / "test.csv", "--output", tmp_path / "scores")
    assert scored.returncode == 0, scored.stderr
