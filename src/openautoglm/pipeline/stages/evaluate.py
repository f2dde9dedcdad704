"""Stage: the trained model's texts for the validation and test records, measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openautoglm.pipeline.context import Run


class EvaluateStage:
    """Generates with every decoding, scores, and chooses the decoding by the validation records."""

    name = "evaluate"
    needs = ("clean", "self_distill")
    format = 1

    def inputs(self, run: Run) -> Any:
        """The section, without what only training or the report read."""
        return run.task.evaluate.model_dump(mode="json", exclude={"checkpoint_cases"})

    def results(self, run: Run) -> Sequence[Path]:
        """Scores and predictions."""
        return run.scores_file, run.evaluate / "predictions.jsonl"

    def run(self, run: Run) -> dict[str, Any]:
        """Generate and score."""
        from openautoglm.pipeline.measure import measure

        return measure(run)

    def wipe(self, run: Run, *, fresh: bool) -> Sequence[Path]:
        """All of it."""
        return (run.evaluate,)
