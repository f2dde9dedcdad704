"""Everything a run folder has to say, read once. A part that is not there yet is None or empty."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openautoglm.core.errors import DataError
from openautoglm.core.files import read_json


@dataclass
class RunFacts:
    """The files of a run, as plain containers."""

    folder: Path
    task: dict[str, Any]
    state: dict[str, Any]
    quality: dict[str, Any] | None = None
    plan: dict[str, Any] | None = None
    trials: dict[str, Any] | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)
    scores: dict[str, Any] | None = None
    predictions: list[dict[str, Any]] = field(default_factory=list)
    card: dict[str, Any] | None = None

    def facts(self, stage: str) -> dict[str, Any]:
        """What a finished stage noted."""
        found: dict[str, Any] = self.state.get("stages", {}).get(stage, {}).get("facts", {})
        return found


def read_facts(folder: Path) -> RunFacts:
    """Read a run folder, finished or not.

    Raises:
        DataError: `folder` is not a run folder, or a file in it is damaged.
    """
    if not (folder / "task.json").is_file():
        raise DataError("is not a run folder: task.json is missing", where=str(folder),
                        remedy="give the folder that `autoglm run` wrote, e.g. runs/NAME")
    return RunFacts(
        folder=folder, task=_json(folder / "task.json")["task"], state=_json(folder / "state.json") or {},
        quality=_json(folder / "data/quality.json"), plan=_json(folder / "plan.json"),
        trials=_json(folder / "search/trials.json"), metrics=_lines(folder / "train/metrics.jsonl"),
        scores=_json(folder / "evaluate/scores.json"), predictions=_lines(folder / "evaluate/predictions.jsonl"),
        card=_json(folder / "bundle/autoglm.json"))


def _json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path), remedy="run its stage again") from error


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSONL file; a last line that is being written is left out."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise DataError(f"a line is damaged: {error}", where=str(path), remedy="run its stage again") from error
    return found
