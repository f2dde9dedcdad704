"""A recipe from the first step to the card: every step's bundle and every measurement is kept until the end."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from openautoglm.core import log
from openautoglm.core.errors import BundleError, CompressError
from openautoglm.core.files import atomic_folder, fingerprint, read_json, write_json
from openautoglm.core.progress import progress
from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.models.card import CARD_NAME
from openautoglm.pipeline.compressing.auto import Candidate, Choice, Plan, candidates, choose, settled
from openautoglm.pipeline.compressing.checks import metric_faults, metric_of, refuse, run_faults, step_faults
from openautoglm.pipeline.compressing.material import Material
from openautoglm.pipeline.compressing.measure import Measured, fits_together, kept, measure, measure_apart
from openautoglm.pipeline.compressing.plain import open_parent
from openautoglm.pipeline.compressing.recipe import Recipe, Step, steps_of
from openautoglm.pipeline.compressing.steps import Around, apply_step
from openautoglm.pipeline.state import locked
from openautoglm.pipeline.units import bytes_text
from openautoglm.runtime.memory import give_back

_log = log.get(__name__)


@dataclass(frozen=True)
class Outcome:
    """What came of a recipe.

    Attributes:
        bundle: that was written.
        parent, child: as measured.
        kept: share of the parent's metric; `metric` says of which.
        missed: targets that are not met, one sentence each.
        choice: what was tried and why this one was taken; None where the recipe has steps of its own.
    """

    bundle: Bundle
    parent: Measured
    child: Measured
    metric: str
    kept: float
    missed: tuple[str, ...]
    choice: Choice | None = None


def compress_bundle(parent: str | Path | Bundle, out: str | Path, recipe: Recipe, material: Material, *,
                    work: str | Path | None = None, here: Path | None = None) -> Outcome:
    """Compress a bundle (or the folder of a released checkpoint) by a recipe, measure what that cost, and write the
    result with its figures on the card.

    A call that was stopped goes on where it was, when it is made again with the same arguments.

    Args:
        work: folder for what is unfinished, removed at the end; ``OUT.work`` when None.
        here: where relative paths of the recipe begin; the current folder when None.

    Raises:
        TaskError: the recipe does not fit model and data; nothing was done.
        CompressError: `out` is the parent, or a step cannot be done.
        NoneFitsError: no candidate of ``auto`` meets all targets.
        AutoGLMError: as the rooms that do the steps.
        ResourceError: another process works in the folder.
    """
    bundle = parent if isinstance(parent, Bundle) else open_parent(parent)
    out = Path(out)
    if out.resolve() == bundle.path.resolve():
        raise CompressError("would take the place of its parent", where=str(out), remedy="choose another --output")
    folder = Path(work) if work is not None else out.with_name(f"{out.name}.work")
    job = Job(bundle, recipe, material, folder, here or Path.cwd())
    with locked(folder):
        outcome = job.run(out)
    shutil.rmtree(folder, ignore_errors=True)
    return outcome


class Job:
    """One recipe in its folder. Steps and measurements lie there under the fingerprint of what they were made from."""

    def __init__(self, parent: Bundle, recipe: Recipe, material: Material, folder: Path, here: Path) -> None:
        self.parent, self.recipe, self.material, self.folder = parent, recipe, material, folder
        self.metric = metric_of(recipe, material.paired)
        fields = any(case.fields for case in material.cases)
        refuse([*metric_faults(recipe, paired=material.paired, fields=fields), *step_faults(recipe, parent.spec),
                *run_faults(recipe, run=material.run is not None, tokens=material.tokens is not None)])
        self._around = Around(material, recipe.calibration, recipe.memory_limit, here)
        self._data = fingerprint([[repr(case) for case in material.cases], [repr(row) for row in material.examples],
                                  material.tokens and material.tokens.fingerprint])

    @cached_property
    def apart(self) -> bool:
        """Whether the parent does not fit into memory, so that only its texts' perplexity is measured, layer by layer.

        Said once and kept, so that all figures of one job are of one kind.
        """
        file = self.folder / "apart.json"
        if not file.is_file():
            write_json(file, not fits_together(self.parent, self.recipe.memory_limit))
        return bool(read_json(file))

    def run(self, out: Path) -> Outcome:
        """All of it."""
        if self.apart:
            _log.info("the parent does not fit into memory: it is measured layer by layer, on texts that are read")
            if self.metric != "perplexity":
                raise CompressError(f"the parent does not fit into memory, so its {self.metric} cannot be measured",
                                    where="metric", remedy="choose perplexity, or use a machine with more memory")
        before = self.measured(self.parent)
        choice = None
        if self.recipe.recipe == "auto":
            choice = self._search(before)
            assert choice.chosen is not None
            steps: Sequence[Step] = choice.chosen.steps
        else:
            steps = steps_of(self.recipe)
        made = self.made(steps)
        after = self.measured(made)
        share = kept(self.metric, before, after)
        missed = self._missed(after, share)
        written = _with_figures(made, out, self._facts(before, after, share, missed, choice))
        return Outcome(written, before, after, self.metric, share, missed, choice)

    def made(self, steps: Sequence[Step]) -> Bundle:
        """The bundle after some steps; what is there of an earlier call is taken."""
        bundle, done = self.parent, []
        for step in steps:
            done.append(step.model_dump(mode="json"))
            key = fingerprint([self.parent.card.files, done, self.recipe.calibration, self._data])[:16]
            place = self.folder / f"{step.method}-{key}"
            try:
                bundle = open_bundle(place)
            except BundleError:
                _log.info("step: %s", step.method)
                bundle = apply_step(step, bundle, place, self._around)
                give_back()  # measuring has two engines in memory
        return bundle

    def measured(self, bundle: Bundle) -> Measured:
        """The figures of a bundle, measured once."""
        asked = [bundle.card.files, bundle.card.recipe.get("engine"), self.parent.card.files, self._data,
                 self.recipe.texts, self.recipe.evaluate.model_dump(mode="json"), self.apart]
        file = self.folder / f"measured-{fingerprint(asked)[:16]}.json"
        if file.is_file():
            return Measured.model_validate(read_json(file))
        _log.info("measuring %s", "the parent" if bundle is self.parent else bundle.path.name.rpartition("-")[0])
        if self.apart:
            found = measure_apart(bundle, self.parent, self.material, self.recipe.texts, self.folder)
        else:
            found = measure(bundle, self.parent, self.material, self.recipe.texts, self.recipe.evaluate)
        write_json(file, found.model_dump(mode="json"))
        return found

    def _search(self, before: Measured) -> Choice:
        tried, plans = list[Candidate](), list(candidates(self.parent.spec, self.recipe))
        with progress(len(plans), "compress: auto", "candidates") as bar:
            for plan in plans:
                bar.update(now=plan.name)
                if not plan.needless(tried, self.recipe.quality):
                    tried += self._tried(plan, before)
                bar.advance()
                if tried and settled(tried[-1], self.recipe):
                    break
        return choose(tried, self.recipe, self.metric)

    def _tried(self, plan: Plan, before: Measured) -> list[Candidate]:
        """The candidate; none where it cannot be made."""
        try:
            after = self.measured(self.made(plan.steps))
        except CompressError as error:
            _log.warning("%s is left out: %s", plan.name, error.message)
            return []
        share = kept(self.metric, before, after)
        _log.info("tried %s: %.3f of %s kept, %s, %.0f tokens/s", plan.name, share, self.metric,
                  bytes_text(after.size_bytes), after.tokens_per_s["1"])
        return [Candidate(plan.name, plan.steps, after, share, not self._missed(after, share))]

    def _missed(self, after: Measured, share: float) -> tuple[str, ...]:
        recipe, found = self.recipe, []
        if share < recipe.quality:
            found.append(f"{share:.3f} of {self.metric} is kept, at least {recipe.quality:g} was asked")
        if recipe.bundle_size is not None and after.size_bytes > recipe.bundle_size:
            found.append(f"the bundle has {bytes_text(after.size_bytes)}, at most {bytes_text(recipe.bundle_size)}")
        if recipe.memory is not None and after.peak_bytes > recipe.memory:
            found.append(f"serving takes {bytes_text(after.peak_bytes)}, at most {bytes_text(recipe.memory)}")
        if recipe.tokens_per_s is not None and after.tokens_per_s["1"] < recipe.tokens_per_s:
            found.append(f"{after.tokens_per_s['1']:.0f} tokens/s, at least {recipe.tokens_per_s:g} were asked")
        return tuple(found)

    def _facts(self, before: Measured, after: Measured, share: float, missed: Sequence[str], choice: Choice | None
               ) -> dict[str, Any]:
        facts = {"metric": self.metric, "kept": share, "missed": list(missed),
                 "parent": before.model_dump(mode="json"), "measured": after.model_dump(mode="json"),
                 "parent_files": self.parent.card.files, "cases": len(self.material.cases)}
        return facts if choice is None else {**facts, "choice": choice.told()}


def _with_figures(made: Bundle, out: Path, facts: dict[str, Any]) -> Bundle:
    """Copy a bundle to its place with what was measured on its card."""
    with atomic_folder(out) as part:
        for name in made.card.files:
            if (made.path / name).is_file():
                shutil.copyfile(made.path / name, part / name)
        card = made.card.model_copy(update={"scores": {"compression": facts}})
        write_json(part / CARD_NAME, card.model_dump(mode="json"))
    return open_bundle(out)
