"""Stage: data, budget and machine to settings, none left open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openautoglm.core import hardware, log
from openautoglm.core.files import write_json
from openautoglm.pipeline.context import Run
from openautoglm.pipeline.facts import machine_facts
from openautoglm.pipeline.material import Material, checkpoint_spec, template_of
from openautoglm.pipeline.plan import resolve

_log = log.get(__name__)


class PlanStage:
    """Fills what the task leaves out; says what it chose, and why."""

    name = "plan"
    needs = ("tokenizer",)
    format = 1

    def inputs(self, run: Run) -> Any:
        """The sections that the plan reads."""
        return run.task.model_dump(mode="json", include={"model", "train", "search", "budget", "seed"})

    def results(self, run: Run) -> Sequence[Path]:
        """The plan."""
        return (run.plan_file,)

    def run(self, run: Run) -> dict[str, Any]:
        """Resolve, write and say."""
        material = Material(run.tokenizer)
        tokenizer = material.tokenizer()
        machine = machine_facts(hardware.probe(), run.task.budget.memory, run.folder)
        plan = resolve(run.task, material.facts(run), machine, pad_id=tokenizer.pad_id,
                       eos_ids=template_of(run).stop_ids(tokenizer), given=checkpoint_spec(run))
        write_json(run.plan_file, plan.model_dump(mode="json"))
        for key, reason in plan.reasons.items():
            _log.info("plan: %s: %s", key, reason)
        spec, train = plan.spec, plan.train
        _log.info("plan: %s parameters, %d layers of width %d, vocabulary %d; %s passes, batch %d, lr %g",
                  f"{spec.parameters:,}", spec.layers, spec.hidden_size, spec.vocab_size, train.passes, train.batch,
                  train.lr)
        return {"parameters": spec.parameters, "machine": machine.model_dump()}

    def wipe(self, run: Run, *, fresh: bool) -> Sequence[Path]:
        """The plan and the machine's measurement."""
        return run.plan_file, run.folder / "machine.json"
