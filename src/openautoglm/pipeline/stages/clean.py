"""Stage: raw files to cleaned, split examples with a quality report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openautoglm.data.clean import clean
from openautoglm.data.read.paths import resolve
from openautoglm.pipeline.context import SPLITS, Run


class CleanStage:
    """Runs the cleaning room; its output appears as a whole."""

    name = "clean"
    needs: tuple[str, ...] = ()
    format = 1

    def inputs(self, run: Run) -> Any:
        """The settings of both sections and the hashes of all files."""
        data = run.task.data
        files = {split: resolve(getattr(data, split), run.base) for split in SPLITS}
        hashes = run.state.file_hashes(path for paths in files.values() for path in paths)
        return {
            "data": data.model_dump(mode="json"),
            "clean": run.task.clean.model_dump(mode="json", exclude={"workers"}),
            "files": {split: [hashes[str(path)] for path in paths] for split, paths in files.items()},
        }

    def results(self, run: Run) -> Sequence[Path]:
        """The training split and the report."""
        return run.split("train"), run.data / "quality.json"

    def run(self, run: Run) -> dict[str, Any]:
        """Clean."""
        clean(run.task.data, run.task.clean, run.data, base=run.base)
        return {}

    def wipe(self, run: Run, *, fresh: bool) -> Sequence[Path]:
        """All of it."""
        return (run.data,)
