"""The plug-in example, installed as a package of its own: its operator, kernels and rule work, and change nothing."""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openautoglm.models import hf
from openautoglm.models.spec import GlmSpec
from openautoglm.runtime.load import TARGETS
from openautoglm.runtime.native import native_module, why_not

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
    # not find_spec: looking for pip's switches setuptools' own distutils off in this process, and torch.compile with it
    if not {"setuptools", "pip"} <= {found.name for found in importlib.metadata.distributions()}:
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


class Tensor(ctypes.Structure):
    """`autoglm_tensor` of the header."""

    _fields_ = (("data", ctypes.c_void_p), ("rows", ctypes.c_int64), ("columns", ctypes.c_int64),
                ("stride", ctypes.c_int64), ("type", ctypes.c_int32))

    @classmethod
    def of(cls, array: Any) -> Tensor:
        """A view of a matrix, or of a vector as a single row."""
        rows, columns = array.shape if array.ndim == 2 else (1, len(array))
        return cls(array.ctypes.data, rows, columns, array.strides[0] // 4 if array.ndim == 2 else columns, 1)


class Call(ctypes.Structure):
    """`autoglm_call` of the header."""

    _fields_ = (("version", ctypes.c_uint32), ("member", ctypes.c_int32), ("members", ctypes.c_int32),
                ("inputs_count", ctypes.c_int32), ("outputs_count", ctypes.c_int32),
                ("attributes_count", ctypes.c_int32), ("inputs", ctypes.POINTER(Tensor)),
                ("outputs", ctypes.POINTER(Tensor)), ("names", ctypes.POINTER(ctypes.c_char_p)),
                ("values", ctypes.POINTER(ctypes.c_double)))


@pytest.fixture(scope="module")
def capsule(installed: Path) -> Any:
    """The C kernel, from the installed package."""
    built = next((installed / "sandwich_norm").glob("_native*.so"), None)
    if built is None:
        if shutil.which("cc") is None:
            pytest.skip("no C compiler")
        pytest.fail("there is a C compiler, but the kernel was not built")
    spec = importlib.util.spec_from_file_location("sandwich_norm._native", built)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.kernel


@pytest.mark.slow
@pytest.mark.parametrize("members", [1, 3])
def test_the_c_kernel_does_what_its_operator_says(capsule: Any, members: int) -> None:
    address = ctypes.pythonapi.PyCapsule_GetPointer
    address.restype, address.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    kernel = ctypes.CFUNCTYPE(None, ctypes.POINTER(Call))(address(capsule, b"autoglm_kernel"))
    random = np.random.default_rng(0)
    wide, y = random.normal(size=(5, 40)).astype(np.float32), random.normal(size=(5, 24)).astype(np.float32)
    x, inner, outer = wide[:, 7:31], *random.normal(1, 0.3, (2, 24)).astype(np.float32)
    outputs = [np.zeros((5, 24), np.float32), np.zeros((5, 30), np.float32)[:, :24]]
    arrays = [(Tensor * len(some))(*map(Tensor.of, some)) for some in ((x, y, inner, outer), outputs)]
    names, values = (ctypes.c_char_p * 2)(b"other", b"eps"), (ctypes.c_double * 2)(9.0, 1e-3)
    for member in range(members):
        kernel(Call(1, member, members, 4, 2, 2, *arrays, names, values))

    def norm(rows: Any) -> Any:
        return rows / np.sqrt((rows.astype(float)**2).mean(-1, keepdims=True) + 1e-3)

    total = x + norm(y) * inner
    assert np.allclose(outputs[0], total, atol=1e-5)
    assert np.allclose(outputs[1], norm(total) * outer, atol=1e-5)


@pytest.mark.slow
def test_the_rule_fuses_and_native_gives_the_same_logits(installed: Path, checkpoint: Path, capsule: Any) -> None:
    if native_module() is None or "native" not in TARGETS:
        pytest.skip(f"no native runtime: {why_not()}")
    found = probe(installed, checkpoint, "native", "fp32")
    assert found["apart"] < 1e-5
    assert not found["torch"]
