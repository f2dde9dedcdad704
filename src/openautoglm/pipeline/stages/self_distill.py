"""Stage: the trained model learns the best of its own texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openautoglm.core import log
from openautoglm.pipeline.context import Run

_log = log.get(__name__)


class SelfDistillStage:
    """Writes targets for the training sources and learns them, where the task asks for it."""

    name = "self_distill"
    needs = ("clean", "train")
    format = 1

    def inputs(self, run: Run) -> Any:
        """The section; that it is off is one state, whatever else it says."""
        section = run.task.self_distill
        return section.model_dump(mode="json") if section.enabled else None

    def results(self, run: Run) -> Sequence[Path]:
        """The model."""
        return (run.model / "autoglm.json",)

    def run(self, run: Run) -> dict[str, Any]:
        """Do it, or say that it is off."""
        if not run.task.self_distill.enabled:
            _log.info("self-distill: off (set self_distill.enabled)")
            return {}
        from openautoglm.pipeline.self_distill import self_distill
        from openautoglm.pipeline.stages.train import plan_and_material

        return self_distill(run, plan_and_material(run)[0])

    def wipe(self, run: Run, *, fresh: bool) -> Sequence[Path]:
        """All of it."""
        return (run.self_distill,)
