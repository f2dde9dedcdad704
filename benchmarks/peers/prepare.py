"""Make what the engines need: environments, random checkpoints, and the peers' own files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from peers.catalogue import ENVIRONMENTS_OF, variants_of
from peers.environments import make_environment, python_of, search_path, source_of


def prepare(work: Path, shapes: Iterable[str], engines: list[str]) -> None:
    """Make what is missing; a file counts as made when it is there under its own name.

    Raises:
        subprocess.CalledProcessError: a step failed; what it said is in the folder `logs`.
    """
    for name in dict.fromkeys(name for engine in engines for name in ENVIRONMENTS_OF[engine]):
        make_environment(work, name)
    if "ours" in engines:  # as pip does with what it installs, the peers' packages among it
        subprocess.run([python_of(work, "ours"), "-m", "compileall", "-q", source_of("ours")], check=True)
    for shape in shapes:
        folder = work / "models" / shape
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint, full = folder / "checkpoint", folder / "bf16.gguf"
        _make(work, checkpoint, "transformers", "make_checkpoint", shape)
        _make(work, folder / "reference.npz", "transformers", "make_reference", shape, checkpoint)
        for model in dict.fromkeys(variant.model for variant in variants_of(engines, shape)):
            if model.endswith(".gguf"):
                _make(work, full, "transformers", "make_gguf", checkpoint)
                _make(work, folder / model, "llama", "quantise_gguf", full)
            elif model.startswith("openvino-"):
                _make(work, folder / model, "export", "export_openvino", shape, checkpoint)
            elif model == "packed":
                _run(work, "ours", "pack_ours", [shape, checkpoint, folder / model])


def _make(work: Path, target: Path, environment: str, module: str, *arguments: str | Path) -> None:
    """Run `peers.MODULE ARGUMENTS TARGET` unless the target is there; a broken-off one never takes its name."""
    if target.exists():
        return
    print(f"making {target}", flush=True)
    unfinished = target.with_name(f"unfinished-{target.name}")
    _run(work, environment, module, [*arguments, unfinished])
    unfinished.rename(target)


def _run(work: Path, environment: str, module: str, arguments: list[str | Path]) -> None:
    """Run `peers.MODULE ARGUMENTS`; what it says goes to a log."""
    log = work / "logs" / f"{module}-{Path(arguments[-1]).parent.name}-{Path(arguments[-1]).name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        subprocess.run([python_of(work, environment), "-m", f"peers.{module}", *map(str, arguments)],
                       cwd=search_path(work), stdout=file, stderr=file, check=True,
                       env={**os.environ, "PYTHONPATH": source_of(environment), "TOKENIZERS_PARALLELISM": "false"})
