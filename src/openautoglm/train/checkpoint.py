"""Checkpoints: whole or absent, checked when read, of this run or refused. Safetensors and JSON, no pickles.

Layout of a run's folder::

    checkpoints/step-00000120/{state.json, tensors.safetensors}
    best/step-00000100.safetensors
    metrics.jsonl, tensorboard/
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from openautoglm.core.errors import CheckpointError
from openautoglm.core.files import atomic_folder, atomic_path, read_json, sha256_file, write_json
from openautoglm.train.events import RunState

FORMAT = 1
_TENSORS = "tensors.safetensors"


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: the run's training folder.
        identity: what makes the run this run (settings, data, shapes); any other is refused.
        keep: how many checkpoints stay.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], keep: int) -> None:
        self._root, self._best = folder / "checkpoints", folder / "best"
        self._identity, self._keep = dict(identity), keep
        self._writer: threading.Thread | None = None
        self._failure: list[BaseException] = []
        for left_over in (*self._root.glob(".*.part"), *self._root.glob(".*.old")):
            shutil.rmtree(left_over, ignore_errors=True)
        for part in self._best.glob(".*.part"):
            part.unlink(missing_ok=True)

    def write(self, state: RunState, tensors: dict[str, Tensor], *, wait: bool = False) -> None:
        """Write a checkpoint, unless `wait` in the background: then `tensors` are copies. An earlier one is awaited."""
        self.join()
        facts = {"format": FORMAT, "identity": self._identity, "state": asdict(state)}
        self._writer = threading.Thread(
            target=self._write, args=(state.step, facts, tensors, state.best_step), name="checkpoint")
        self._writer.start()
        if wait:
            self.join()

    def join(self) -> None:
        """Wait for the write under way; raises what went wrong in it."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._failure:
            error = self._failure.pop()
            raise CheckpointError(f"the checkpoint could not be written: {error}", where=str(self._root),
                                  remedy="free disk space, then run the same command again") from error

    def latest(self) -> tuple[RunState, dict[str, Tensor]] | None:
        """Return the newest checkpoint, or None where there is none.

        Raises:
            CheckpointError: it is damaged, of a newer format, or of another run.
        """
        found = sorted(self._root.glob("step-*"))
        if not found:
            return None
        folder = found[-1]
        remedy = f"delete {folder} to go on from the one before, or {self._root} to start again"
        try:
            facts = read_json(folder / "state.json")
            if facts["format"] != FORMAT:
                raise CheckpointError(f"format {facts['format']}, not {FORMAT}", where=str(folder),
                                      remedy=remedy)
            self._refuse_others(facts["identity"], folder)
            if sha256_file(folder / _TENSORS) != facts["sha256"]:
                raise CheckpointError("the checkpoint is damaged: its hash differs", where=str(folder),
                                      remedy=remedy)
            return RunState(**facts["state"]), load_file(folder / _TENSORS)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise CheckpointError(f"the checkpoint cannot be read: {error}", where=str(folder),
                                  remedy=remedy) from error

    def write_best(self, step: int, weights: dict[str, Tensor]) -> None:
        """Keep the weights of the best validation so far."""
        with atomic_path(self._best_file(step)) as part:
            save_file(weights, part)

    def read_best(self, step: int) -> dict[str, Tensor]:
        """Return the weights of the best validation; raises CheckpointError when they are gone or damaged."""
        try:
            return load_file(self._best_file(step))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"the best weights cannot be read: {error}", where=str(self._best_file(step)),
                remedy=f"delete {self._root} to train again") from error

    def _best_file(self, step: int) -> Path:
        return self._best / f"step-{step:08d}.safetensors"

    def _write(self, step: int, facts: dict[str, Any], tensors: dict[str, Tensor],
               best_step: int | None) -> None:
        try:
            with atomic_folder(self._root / f"step-{step:08d}") as folder:
                save_file(tensors, folder / _TENSORS)  # not `save`, which holds a copy of all of it
                write_json(folder / "state.json", facts | {"sha256": sha256_file(folder / _TENSORS)})
            self._forget(best_step)
        except BaseException as error:  # handed to the training thread by `join`
            self._failure.append(error)

    def _forget(self, best_step: int | None) -> None:
        """Delete older checkpoints, and best weights that no kept checkpoint speaks of."""
        found = sorted(self._root.glob("step-*"))
        for folder in found[: -self._keep]:
            shutil.rmtree(folder)
        spoken_of = {best_step} | {read_json(folder / "state.json")["state"]["best_step"]
                                   for folder in found[-self._keep :]}
        names = {self._best_file(step).name for step in spoken_of if step is not None}
        for file in self._best.glob("step-*.safetensors"):
            if file.name not in names and file.name < max(names, default=""):
                file.unlink()

    def _refuse_others(self, identity: Mapping[str, Any], folder: Path) -> None:
        mine = self._identity
        differing = [f"{key} is {mine.get(key)!r}, was {identity.get(key)!r}"
                     for key in sorted({*identity, *mine}) if identity.get(key) != mine.get(key)]
        if differing:
            raise CheckpointError(
                "the checkpoint is of another run: " + "; ".join(differing), where=str(folder),
                remedy=f"restore these settings and data, or delete {self._root} to start again")
