"""Stage: the report, one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openautoglm.core import log
from openautoglm.pipeline.context import Run

_log = log.get(__name__)


class ReportStage:
    """Writes the page and the same facts as JSON."""

    name = "report"
    needs = ("clean", "tokenizer", "search", "train", "evaluate", "export")
    format = 1

    def inputs(self, run: Run) -> Any:
        """Nothing of its own but what compression did, where the task asks for it."""
        return run.state.begun("compress") if run.task.compress else None

    def results(self, run: Run) -> Sequence[Path]:
        """The page."""
        return (run.report, run.folder / "report.json")

    def run(self, run: Run) -> dict[str, Any]:
        """Write it."""
        from openautoglm.pipeline.report.write import write_report

        _log.info("report: %s", write_report(run.folder))
        return {}

    def wipe(self, run: Run, *, fresh: bool) -> Sequence[Path]:
        """The page."""
        return (run.report,)
