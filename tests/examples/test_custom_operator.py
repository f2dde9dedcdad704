"""The plug-in example, installed as a package of its own: its operator, kernels and rule work, and change nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from openautoglm.models import hf
from openautoglm.models.spec import GlmSpec

ROOT = Path(__file__).resolve().parents[2]
SPEC = GlmSpec(family="glm4", vocab_size=64, hidden_size=32, layers=2, heads=2, kv_heads=1, head_dim=16, ffn_size=64,
               max_positions=64)
PROBE = Path(__file__).with_name("custom_operator_probe.py")


def environment(*first: Path) -> dict[str, str]:
    """The environment of a process that finds packages in these folders before all others."""
    paths = [*map(str, first), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the package was installed into."""
    if any(importlib.util.find_spec(name) is None for name in ("setuptools", "pip")):
        pytest.skip("installing the example without the network takes pip and setuptools")
    folder, source = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("source") / "custom_operator"
    for file in (ROOT / "examples/custom_operator").rglob("*"):  # building writes beside the sources
        if file.is_file() and not {"build", "__pycache__"} & set(file.parts) and ".egg-info" not in str(file):
            copy = source / file.relative_to(ROOT / "examples/custom_operator")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "--target", str(folder), str(source)],
        env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint with sandwich norms."""
    folder = tmp_path_factory.mktemp("sandwich")
    hf.build(SPEC, seed=0, init_std=0.2).save_pretrained(folder)
    return folder


def probe(installed: Path, checkpoint: Path, *arguments: str) -> dict[str, Any]:
    """What the probe found in a process of its own."""
    done = subprocess.run([sys.executable, str(PROBE), str(checkpoint), *arguments], env=environment(installed),
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_rule_fuses_and_torch_gives_the_same_logits(installed: Path, checkpoint: Path, dtype: str) -> None:
    found = probe(installed, checkpoint, "torch:cpu", dtype)
    assert found["plain"].count("add_rms_norm") == found["fused"].count("sandwich_norm") == 2 * SPEC.layers
    assert found["plain"].count("rms_norm") == 1 + 2 * SPEC.layers
    assert found["fused"].count("rms_norm") == 1
    assert not {"add", "add_rms_norm"} & set(found["fused"])
    assert found["apart"] < (1e-5 if dtype == "fp32" else 2e-2)


@pytest.mark.slow
def test_the_command_line_knows_the_rule(installed: Path, checkpoint: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "openautoglm", "graph", str(checkpoint), "--rule", "fuse_sandwich_norm"],
        env=environment(installed), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ["fuse_sandwich_norm", "4"] in [line.split() for line in done.stdout.splitlines()]
