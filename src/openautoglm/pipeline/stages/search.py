"""Stage: a search over shape and training settings, within its share of the budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openautoglm.core import log
from openautoglm.core.files import fingerprint, read_json, write_json
from openautoglm.pipeline.context import Run

_log = log.get(__name__)


class SearchStage:
    """Runs the search room with trials of real training; nothing where the plan has no search."""

    name = "search"
    needs = ("tokenizer",)
    format = 1

    def inputs(self, run: Run) -> Any:
        """What makes the search what it is, and how long it may go on."""
        return {"search": identity(run), "limits": run.plan().search.model_dump(mode="json")}

    def results(self, run: Run) -> Sequence[Path]:
        """The chosen point."""
        return (run.search_file,) if run.plan().search.trials else ()

    def run(self, run: Run) -> dict[str, Any]:
        """Search, and write the chosen point down."""
        plan = run.plan()
        if not plan.search.trials:
            run.search_file.unlink(missing_ok=True)
            _log.info("search: off (set budget.trials, or search.enabled)")
            return {"trials": 0}
        from openautoglm.pipeline.trial import run_search

        write_json(run.search / "identity.json", fingerprint(identity(run)))
        result = run_search(run, plan)
        write_json(run.search_file, {"point": dict(result.best.point), "trial": result.best.number})
        _log.info("search:\n%s", result.table())
        return {"trials": len(result.trials), "best": result.best.number, "stopped": result.stopped}

    def wipe(self, run: Run, *, fresh: bool) -> Sequence[Path]:
        """All of it; where only the limits have changed, the same search goes on from its trials."""
        kept = run.search / "identity.json"
        same = not fresh and kept.is_file() and read_json(kept) == fingerprint(identity(run))
        return (run.search_file,) if same else (run.search,)


def identity(run: Run) -> Any:
    """What a stored search must have in common with this one: data, plan and section, without the limits."""
    plan = run.plan()
    return {"plan": plan.model_dump(mode="json", include={"spec", "dropout", "attention_dropout"}),
            "train": plan.train.model_dump(mode="json", exclude={"passes", "minutes"}),
            "trial tokens": plan.search.trial_tokens, "parameters": run.task.budget.parameters,
            "tokenizer": run.state.begun("tokenizer"),
            "section": run.task.search.model_dump(mode="json", exclude={"trials", "minutes", "share"})}
