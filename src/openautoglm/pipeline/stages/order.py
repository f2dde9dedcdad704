"""The stages in their order."""

from __future__ import annotations

from openautoglm.core.files import write_json
from openautoglm.pipeline.context import Run
from openautoglm.pipeline.run import Stage, Walk, walk
from openautoglm.pipeline.stages.clean import CleanStage
from openautoglm.pipeline.stages.compress import CompressStage
from openautoglm.pipeline.stages.evaluate import EvaluateStage
from openautoglm.pipeline.stages.export import ExportStage
from openautoglm.pipeline.stages.plan import PlanStage
from openautoglm.pipeline.stages.report import ReportStage
from openautoglm.pipeline.stages.search import SearchStage
from openautoglm.pipeline.stages.self_distill import SelfDistillStage
from openautoglm.pipeline.stages.tokenizer import TokenizerStage
from openautoglm.pipeline.stages.train import TrainStage

STAGES: tuple[Stage, ...] = (CleanStage(), TokenizerStage(), PlanStage(), SearchStage(), TrainStage(),
                             SelfDistillStage(), EvaluateStage(), CompressStage(), ExportStage(), ReportStage())


def run_stages(run: Run, *, until: str | None = None, from_: str | None = None, fresh: bool = False) -> dict[str, str]:
    """Run the stages of a task in its folder, the finished ones skipped; return what happened to each.

    Args:
        until: the last stage to run.
        from_: this stage and all later ones are run again.
        fresh: all stages are run again.

    Raises:
        AutoGLMError: whatever a stage raises; the stages before it stay finished.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    write_json(run.folder / "task.json", {"base": str(run.base), "task": run.task.model_dump(mode="json")})
    return walk(run, STAGES, Walk(until=until, from_=from_, fresh=fresh))
