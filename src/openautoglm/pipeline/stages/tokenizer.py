"""Stage: cleaned examples to a tokenizer and to token ids on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openautoglm.pipeline.context import Run
from openautoglm.pipeline.material import Material, prepare, source_of_tokenizer, template_of


class TokenizerStage:
    """Trains or takes the tokenizer, and encodes the training and validation splits."""

    name = "tokenizer"
    needs = ("clean",)
    format = 1

    def inputs(self, run: Run) -> Any:
        """Where the tokenizer comes from, its size, the prompt form, and the longest text."""
        given = source_of_tokenizer(run)
        return {"section": run.task.tokenizer.model_dump(mode="json"), "checkpoint": run.task.model.checkpoint,
                "file": list(run.state.file_hashes([given / "tokenizer.json"]).values()) if given else None,
                "template": template_of(run).model_dump(mode="json"), "max_positions": run.task.model.max_positions}

    def results(self, run: Run) -> Sequence[Path]:
        """The tokenizer and both stores."""
        return Material(run.tokenizer).parts

    def run(self, run: Run) -> dict[str, Any]:
        """Train and encode."""
        material = prepare(run, run.tokenizer, None)
        return material.facts(run).model_dump()

    def wipe(self, run: Run, *, fresh: bool) -> Sequence[Path]:
        """All of it."""
        return (run.tokenizer,)
