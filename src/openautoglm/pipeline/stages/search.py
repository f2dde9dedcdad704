"""Stage: a search over shape and training settings, within its share of the budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openautoglm.core import log
from openautoglm.core.files import write_json
from openautoglm.pipeline.context import Run

_log = log.get(__name__)


class SearchStage:
    """Runs the search room with trials of real training; nothing where the plan has no search."""

    name = "search"
    needs = ("tokenizer",)
    format = 1

    def inputs(self, run: Run) -> Any:
        """The plan before the search, and the section; more trials or minutes go on with the same search."""
        plan = run.plan()
        return {"plan": plan.model_dump(mode="json", exclude={"reasons"}), "budget": run.task.budget.parameters,
                "section": run.task.search.model_dump(mode="json")}

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

        result = run_search(run, plan)
        write_json(run.search_file, {"point": dict(result.best.point), "trial": result.best.number})
        _log.info("search:\n%s", result.table())
        return {"trials": len(result.trials), "best": result.best.number, "stopped": result.stopped}

    def wipe(self, run: Run) -> Sequence[Path]:
        """All of it."""
        return (run.search,)
