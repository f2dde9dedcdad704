"""Metrics of a run: one JSON line a step, and TensorBoard where installed. A resumed run repeats no line."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from openautoglm.core.extras import installed
from openautoglm.core.files import atomic_write
from openautoglm.train.events import StepEvent

_PLOTTED = ("loss", "nll", "lr", "grad_norm", "tokens_per_s", "valid_loss")


class Recorder:
    """Writes events to ``metrics.jsonl`` (flushed by line) and ``tensorboard/`` of `folder`; None: nothing.

    Args:
        after_step: the step from which the run goes on; lines of later steps, left by a crash, are dropped.
    """

    def __init__(self, folder: Path | None, *, after_step: int, tensorboard: bool) -> None:
        self._file: Any = None
        self._board: Any = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        _keep_until(path, after_step)
        self._file = path.open("a", encoding="utf-8")
        if tensorboard and installed("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=after_step + 1)

    def add(self, event: StepEvent) -> None:
        """Record one step."""
        if self._file is not None:
            self._file.write(json.dumps(asdict(event)) + "\n")
            self._file.flush()
        if self._board is not None:
            shown = {name: getattr(event, name) for name in _PLOTTED} | dict(event.metrics)
            for name, value in shown.items():
                if value is not None:
                    self._board.add_scalar(name, value, event.step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        for sink in (self._file, self._board):
            if sink is not None:
                sink.close()


def _keep_until(path: Path, step: int) -> None:
    """Drop lines after `step`, and a last line that was cut by a crash."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):
            break  # a torn line can only be the last one
    with atomic_write(path) as file:
        file.writelines(kept)
