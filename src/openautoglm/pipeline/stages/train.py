"""Stage: the model, trained from scratch or from a checkpoint, and written as a bundle without scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openautoglm.core.files import read_json
from openautoglm.models.card import CARD_NAME
from openautoglm.pipeline.context import Run
from openautoglm.pipeline.material import teacher_folder
from openautoglm.pipeline.plan import Plan


class TrainStage:
    """Trains with the plan, or with the point that the search chose; resumes from its own checkpoints."""

    name = "train"
    needs = ("tokenizer",)
    format = 1

    def inputs(self, run: Run) -> Any:
        """Everything that changes the model's numbers."""
        plan, teacher = run.plan(), teacher_folder(run)
        taught = {} if teacher is None else {
            "distill": run.task.distill.model_dump(mode="json", exclude={"teacher", "cache_gib"}),
            "teacher": list(run.state.file_hashes([teacher / CARD_NAME]).values())}
        return taught | {
                "spec": plan.spec.model_dump(mode="json"), "train": plan.train.numeric(), "dropout": plan.dropout,
                "attention_dropout": plan.attention_dropout, "point": chosen_point(run),
                "start": run.task.model.model_dump(mode="json", include={"checkpoint", "tune", "lora"}),
                "checkpoints by": run.task.evaluate.model_dump(
                    mode="json", include={"lowercase", "tokenize", "checkpoint_cases"})}

    def results(self, run: Run) -> Sequence[Path]:
        """The model."""
        return (run.trained / "autoglm.json",)

    def run(self, run: Run) -> dict[str, Any]:
        """Train to the end, and write the model."""
        from openautoglm.pipeline.learn import learn

        return learn(run, *plan_and_material(run))

    def wipe(self, run: Run, *, fresh: bool) -> Sequence[Path]:
        """All of it."""
        return (run.train,)


def chosen_point(run: Run) -> dict[str, Any] | None:
    """The point that the search chose; None without a search."""
    if not run.plan().search.trials:
        return None
    point: dict[str, Any] = read_json(run.search_file)["point"]
    return point


def plan_and_material(run: Run) -> tuple[Plan, Any]:
    """The final plan, and the tokenizer and tokens that go with it."""
    from openautoglm.pipeline.trial import final_plan, material_of

    plan, point = run.plan(), chosen_point(run)
    if point is None:
        return plan, material_of(run, plan, plan.spec.vocab_size)
    material = material_of(run, plan, int(point["vocab_size"]))
    return final_plan(run, plan, point, material), material


