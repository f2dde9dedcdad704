"""The edge program, compiled once and kept for later runs of the tests, and tiny models for it."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from openautoglm.edge import compile as compile_module
from openautoglm.edge.compile import compile_program
from openautoglm.runtime.native import native_module, why_not


def sources_digest() -> str:
    """What the program depends on: its sources, how they are compiled, and the compiler."""
    version = subprocess.run(["g++", "--version"], capture_output=True, check=True).stdout
    digest = hashlib.sha256(version + Path(compile_module.__file__).read_bytes())
    for folder in compile_module._INCLUDES:
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".h", ".cpp"):
                digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:24]


@pytest.fixture(scope="session")
def program(pytestconfig: pytest.Config) -> Path:
    """The compiled program with all features."""
    if native_module() is None:
        pytest.skip(why_not())
    if shutil.which("g++") is None:
        pytest.skip("there is no g++ here")
    folder = pytestconfig.cache.mkdir("edge")  # type: ignore[union-attr]
    path = Path(folder) / f"autoglm-edge-{sources_digest()}"
    with (Path(folder) / "lock").open("w") as lock:  # workers of one run wait for the one that compiles
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_file():
            for old in Path(folder).glob("autoglm-edge-*"):
                old.unlink()
            compile_program(path)
    return path


@pytest.fixture(scope="session")
def make(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Make a tiny bundle and its edge model; see `edge_models.make_model`."""
    from edge_models import make_model

    return lambda **facts: make_model(tmp_path_factory.mktemp("edge"), program, **facts)


@pytest.fixture(scope="session")
def model(make: Callable[..., Any]) -> Any:
    """A model of random weights in fp32, its template `pair`."""
    return make()


@pytest.fixture(scope="session")
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the program of an edge folder on lines."""
    def call(folder: Path, lines: Sequence[str], *options: str, env: Any = None) -> subprocess.CompletedProcess[str]:
        text = "".join(f"{line}\n" for line in lines)
        return subprocess.run([folder / "autoglm-edge", *options], input=text, capture_output=True, text=True,
                              encoding="utf-8", timeout=120, check=False, env=env)

    return call
