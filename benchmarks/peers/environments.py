"""An environment of its own for each peer: `python -m venv` and pinned packages from PyPI."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
import venv
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Environment:
    """A virtual environment.

    Attributes:
        installs: lists of requirements, installed one list after the other.
        variables: set while installing.
        without: packages that are taken away again.
    """

    name: str
    installs: tuple[tuple[str, ...], ...]
    variables: dict[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()


REPOSITORY = Path(__file__).resolve().parents[2]


def _own_requirements() -> tuple[str, ...]:
    """What openautoglm needs to run, and no torch."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    return ("-c", "constraints.txt", *project["project"]["dependencies"])


ENVIRONMENTS = {environment.name: environment for environment in (
    Environment("ours", (_own_requirements(),)),
    # Without a pin of torch, pip takes several GB of CUDA packages.
    Environment("transformers", (("torch==2.13.0", "transformers==5.23.0", "accelerate==1.15.0", "gguf==0.19.0",
                                  "numpy==2.4.6"),)),
    # Built from source for this processor, which takes some minutes.
    Environment("llama", (("numpy==2.4.6", "llama-cpp-python==0.3.36"),),
                {"CMAKE_ARGS": "-DLLAMA_OPENSSL=OFF -DLLAMA_USE_PREBUILT_UI=OFF"}),
    Environment("openvino", (("openvino==2026.4.1", "openvino-genai==2026.4.1", "numpy"),)),
    # Writes OpenVINO's files; it wants an older transformers, and brings a torchvision that needs CUDA.
    Environment("export", (("torch==2.13.0",),
                           ("torch==2.13.0", "optimum-intel==2.2.0", "nncf==3.4.0", "transformers==4.57.6",
                            "openvino==2026.4.1", "openvino-tokenizers==2026.4.1.0")), without=("torchvision",)),
)}


def python_of(work: Path, name: str) -> Path:
    """The interpreter of an environment."""
    return work / "envs" / name / "bin" / "python"


def source_of(name: str) -> str:
    """What is on the search path besides: our source, whose extension `make native` builds in place."""
    return str(REPOSITORY / "src") if name == "ours" else ""


def search_path(work: Path) -> Path:
    """A folder from which the environments import `peers` and nothing else.

    The scripts beside this package have names that other packages look for, such as `kernels`.
    """
    folder = work / "path"
    folder.mkdir(parents=True, exist_ok=True)
    link, here = folder / "peers", Path(__file__).resolve().parent
    if not (link.is_symlink() and link.resolve() == here):
        link.unlink(missing_ok=True)
        link.symlink_to(here)
    return folder


def make_environment(work: Path, name: str) -> None:
    """Make the environment unless it lies there complete.

    Raises:
        subprocess.CalledProcessError: pip failed; what it said is in `logs/env-NAME.log`.
    """
    environment = ENVIRONMENTS[name]
    folder, stamp = work / "envs" / name, work / "envs" / name / "made.json"
    wanted = {"installs": [list(step) for step in environment.installs], "variables": environment.variables,
              "without": list(environment.without)}
    if stamp.exists() and json.loads(stamp.read_text()) == wanted:
        return
    print(f"making the environment {name}", flush=True)
    if not python_of(work, name).exists():
        venv.create(folder, with_pip=True)
    pip = [str(python_of(work, name)), "-m", "pip", "--disable-pip-version-check"]
    log = work / "logs" / f"env-{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        for requirements in environment.installs:
            subprocess.run([*pip, "install", *requirements], env={**os.environ, **environment.variables}, stdout=file,
                           stderr=file, check=True, cwd=REPOSITORY)
        if environment.without:
            subprocess.run([*pip, "uninstall", "-y", *environment.without], stdout=file, stderr=file, check=True)
    stamp.write_text(json.dumps(wanted))


def versions(work: Path, name: str) -> list[str]:
    """The pins of an environment that matter for the figures."""
    return [pin for step in ENVIRONMENTS[name].installs for pin in step]
