"""What can be known of a recipe before anything runs: whether its metric is measured, and its steps fit the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from openautoglm.compress.prune.settings import PruneSettings
from openautoglm.compress.prune.shapes import smaller_spec
from openautoglm.compress.settings import MixedSettings
from openautoglm.core.errors import CompressError, Fault, TaskError
from openautoglm.models.spec import GlmSpec
from openautoglm.pipeline.compressing.recipe import QUANTISING, DistilStep, Recipe, steps_of
from openautoglm.pipeline.positions import KeyPath, key_text
from openautoglm.pipeline.units import bytes_text

Found = tuple[KeyPath, str, str]
"""Key path within a recipe, what is wrong there, and the remedy."""
_GROUPS = (128, 64, 32, 0)


def metric_of(recipe: Recipe, paired: bool) -> str:
    """The metric that counts: the recipe's; bleu of answers or the first that is measured, perplexity of plain text."""
    if recipe.metric is not None:
        return recipe.metric
    if not paired:
        return "perplexity"
    asked = recipe.evaluate.metrics
    return "bleu" if asked is None or "bleu" in asked else asked[0]


def metric_faults(recipe: Recipe, *, paired: bool, fields: bool) -> Iterator[Found]:
    """Whether the metric can be measured at all.

    Args:
        paired: whether there is something to answer, rather than plain text.
        fields: whether records have fields.
    """
    from openautoglm.evaluate.registry import METRICS

    key = metric_of(recipe, paired)
    if key == "perplexity" or (key == "bits_per_byte" and not paired):
        return
    metric, asked, place = METRICS[key], recipe.evaluate.metrics, ("metric",)
    if metric.needs == "likelihoods" or metric.better == "neither":
        yield place, f"{key} cannot tell what was kept", "choose bleu, chrf or another that is better when higher or " \
            "lower, or perplexity"
    elif not paired:
        yield place, f"{key} is a metric of answers, and the data is plain text", "give records with sources and " \
            "targets, or leave metric out: perplexity counts then"
    elif asked is not None and key not in asked:
        yield place, f"{key} is not among the metrics that are measured", f"choose one of {', '.join(asked)}, or add it"
    elif metric.needs == "fields" and not fields:
        yield place, f"{key} needs the fields of the records", "give data.fields, or choose another metric"


def run_faults(recipe: Recipe, *, run: bool, tokens: bool) -> Iterator[Found]:
    """Whether steps that train have something to train on.

    Args:
        run: whether there is a run folder.
        tokens: whether there are the tokens of a training.
    """
    for number, step in enumerate(steps_of(recipe)):
        if isinstance(step, DistilStep) and not run:
            yield (("recipe", number), "a student is trained, and there is no run to take examples from",
                   "give --run FOLDER of the run that made the bundle")
        elif isinstance(step, PruneSettings) and not tokens and (
                step.recover.passes or (step.steps > 1 and step.recover.step_passes)):
            yield (("recipe", number, "recover"), "what is pruned is trained, and there is no run to take tokens from",
                   "give --run FOLDER, or prune alone: `recover: {passes: 0, step_passes: 0}` in a recipe file")


def step_faults(recipe: Recipe, spec: GlmSpec) -> Iterator[Found]:
    """Whether the steps fit a model, one after the other, and whether the size can be reached by them."""
    for number, step in enumerate(steps_of(recipe)):
        place: KeyPath = ("recipe", number)
        try:
            if isinstance(step, PruneSettings) and step.form == "structured":
                spec = smaller_spec(spec, step)
            elif isinstance(step, DistilStep):
                spec = GlmSpec(**{**spec.model_dump(), **step.student.of(spec)})
        except CompressError as error:
            yield (*place, *([error.where] if error.where else [])), error.message, error.remedy or ""
            return
        except ValidationError as error:
            text = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
            yield (*place, "student"), text, "choose other sizes"
            return
        if isinstance(step, QUANTISING):
            base: Any = step.base if isinstance(step, MixedSettings) else step
            widths = (spec.hidden_size, spec.query_size, spec.ffn_size)
            fitting = [group for group in _GROUPS if not group or all(width % group == 0 for width in widths)]
            if base.group not in fitting:
                inner = ("base", "group") if isinstance(step, MixedSettings) else ("group",)
                yield ((*place, *inner), f"groups of {base.group} do not divide the model's widths "
                       f"{', '.join(map(str, dict.fromkeys(widths)))}", f"choose {', '.join(map(str, fitting))}")
    least = spec.parameters * _bits(recipe) // 8
    if recipe.bundle_size is not None and recipe.bundle_size < least:
        yield (("bundle_size",), f"cannot be reached: {spec.parameters:,} weights take {bytes_text(least)} at least",
               "allow more, or prune or distill first")


def refuse(found: Sequence[Found]) -> None:
    """Raise what was found.

    Raises:
        TaskError: something was.
    """
    if found:
        faults = tuple(Fault(key_text(path), 0, 0, message, remedy) for path, message, remedy in found)
        raise TaskError("the recipe does not fit model and data", where="recipe", faults=faults,
                        remedy="correct the keys named")


def _bits(recipe: Recipe) -> int:
    """Bits of a weight at the least; what sparse weights take is not known here."""
    if recipe.recipe == "auto":
        return 4
    if any(isinstance(step, MixedSettings) for step in recipe.recipe):
        return 4
    return min((getattr(step, "bits", 32) for step in recipe.recipe if isinstance(step, QUANTISING)), default=16)
