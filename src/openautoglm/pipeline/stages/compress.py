"""Stage: the trained model made smaller and faster, as the section `compress` says, and what that cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openautoglm.core import log
from openautoglm.models.card import CARD_NAME
from openautoglm.pipeline.compressing.recipe import MergeLoraSettings, steps_of
from openautoglm.pipeline.context import Run

if TYPE_CHECKING:
    from openautoglm.models.bundle import Bundle
    from openautoglm.pipeline.compressing.material import Material

_log = log.get(__name__)


class CompressStage:
    """Follows the recipe with the run's own records, and measures the result; nothing where the task has no section.

    Where no candidate of ``auto`` meets the targets the run goes on: the trained bundle is its result, and report and
    facts say so.
    """

    name = "compress"
    needs = ("clean", "self_distill", "evaluate")
    format = 1

    def inputs(self, run: Run) -> Any:
        """The recipe, and the files that it names."""
        recipe = run.task.recipe()
        if recipe is None:
            return None
        adapters = [run.base / step.adapter for step in steps_of(recipe) if isinstance(step, MergeLoraSettings)]
        files = sorted(file for folder in adapters for file in folder.glob("adapter_*") if file.is_file())
        return {"recipe": recipe.model_dump(mode="json", exclude={"memory_limit"}),
                "adapters": list(run.state.file_hashes(files).values())}

    def results(self, run: Run) -> Sequence[Path]:
        """The compressed bundle, as far as there is to be one."""
        found = run.state.finished(self.name)
        written = run.task.compress is not None and (found is None or "parent" in found["facts"])
        return (run.compressed / CARD_NAME,) if written else ()

    def run(self, run: Run) -> dict[str, Any]:
        """Compress and measure, or say that it is off."""
        recipe = run.task.recipe()
        if recipe is None:
            _log.info("compress: off (add a `compress` section)")
            return {}
        from openautoglm.pipeline.compressing.auto import NoneFitsError
        from openautoglm.pipeline.compressing.run import compress_bundle

        try:
            made = compress_bundle(trained(run), run.compressed, recipe, material(run, recipe.cases), here=run.base)
        except NoneFitsError as error:
            _log.warning("compress: %s; the trained bundle is the result", error.message)
            return {"missed": [error.message], "choice": error.choice.told()}
        for missed in made.missed:
            _log.warning("compress: a target is missed: %s; the trained bundle is the result", missed)
        facts: dict[str, Any] = made.bundle.card.scores["compression"]
        return facts

    def wipe(self, run: Run, *, fresh: bool) -> Sequence[Path]:
        """The bundle; what is unfinished serves other targets too, unless all is to be done again."""
        work = run.compressed.with_name(f"{run.compressed.name}.work")
        return (run.compressed, work) if fresh or run.task.compress is None else (run.compressed,)


def trained(run: Run) -> Bundle:
    """The trained model with the card that its bundle will have."""
    from openautoglm.models.bundle import open_bundle
    from openautoglm.pipeline.stages.export import card_facts

    bundle = open_bundle(run.model)
    return replace(bundle, card=bundle.card.model_copy(update=card_facts(run)))


def material(run: Run, most: int | None) -> Material:
    """The run's records, and the tokens that its model learnt last, in the vocabulary that the search chose."""
    from openautoglm.pipeline.compressing.material import of_run
    from openautoglm.pipeline.recovery import Recovery
    from openautoglm.pipeline.stages.train import plan_and_material

    found, (_, own) = of_run(run.folder, most), plan_and_material(run)
    taught = found.tokens if run.task.self_distill.enabled else None
    return replace(found, tokens=Recovery(taught.train if taught else own.store("train"), own.store("valid")))
