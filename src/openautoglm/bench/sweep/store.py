"""The finished runs of a sweep: a file of JSON lines that grows, so that a sweep goes on where it was stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openautoglm.core.errors import LoadError
from openautoglm.core.files import fingerprint


class Store:
    """Runs by their key; the first line says what they have in common.

    Args:
        facts: of model, machine and load; a file of others is refused.
        fresh: begin anew whatever is there.

    Raises:
        LoadError: the file is of another sweep, or damaged elsewhere than in its last line.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any], *, fresh: bool = False) -> None:
        self._path, self._mark = path, fingerprint(facts)
        self.runs: dict[str, dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh or not path.is_file() or not path.stat().st_size:
            self._append({"sweep": self._mark, "facts": dict(facts)}, mode="w")
        else:
            self._read()

    def add(self, key: str, run: Mapping[str, Any]) -> None:
        """Keep a run; it is on the disk when this returns."""
        self.runs[key] = dict(run)
        self._append({"key": key, **run})

    def finished(self, key: str) -> bool:
        """Whether a run was made and did not fail."""
        return key in self.runs and not self.runs[key].get("error")

    def _append(self, value: Mapping[str, Any], mode: str = "a") -> None:
        with self._path.open(mode, encoding="utf-8") as file:
            file.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> None:
        *whole, last = self._path.read_bytes().split(b"\n")
        values = []
        for number, line in enumerate(whole, 1):
            try:
                values.append(json.loads(line))
            except ValueError as error:
                raise LoadError(f"is damaged: {error}", where=f"{self._path}:{number}",
                                remedy="remove the line, or begin anew with --fresh") from error
        if not values or values[0].get("sweep") != self._mark:
            raise LoadError("holds runs of another model, machine or load", where=str(self._path),
                            remedy="give another --output, or begin anew with --fresh")
        for value in values[1:]:
            self.runs[value.pop("key")] = value
        if last:  # a line that was cut when the writing was interrupted
            with self._path.open("r+b") as file:
                file.truncate(self._path.stat().st_size - len(last))
