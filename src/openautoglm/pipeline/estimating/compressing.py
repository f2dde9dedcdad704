"""What a compression takes: each step's own plan of memory, and measuring parent and child on the engine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from openautoglm.compress.plan import OVERHEAD_BYTES, Shown, state_bytes
from openautoglm.compress.plan import moments as quantising
from openautoglm.compress.prune.settings import PruneSettings
from openautoglm.compress.settings import MixedSettings, RtnSettings
from openautoglm.compress.source import slots
from openautoglm.compress.tables import form_of
from openautoglm.engine.open import ProgramSettings, planned
from openautoglm.models.spec import GlmSpec
from openautoglm.pipeline.compressing.auto import ways
from openautoglm.pipeline.compressing.material import LONGEST
from openautoglm.pipeline.compressing.recipe import QUANTISING, DistilStep, KvSettings, MergeLoraSettings, Recipe, Step
from openautoglm.pipeline.estimating.cost import LIBRARIES, Cost
from openautoglm.pipeline.estimating.libraries import library_bytes
from openautoglm.pipeline.estimating.serving import has_weights, with_cache
from openautoglm.pipeline.estimating.speed import bytes_per_s, products_per_s
from openautoglm.pipeline.estimating.training import step_of
from openautoglm.runtime.load import weigh
from openautoglm.runtime.program import ComputeType
from openautoglm.train.footprint import Training, footprint
from openautoglm.train.settings import TrainSettings

_TOGETHER = 32
_LOGITS = 2 * 4 + 5 * 8
"""Bytes of a logit of both, and of what is made of it to compare: logarithms of both, shares, and two on the way."""
_RATE = 0.5
"""Share of the rate of products that the small and triangular products of a quantisation reach."""
_RTN_PASSES = 40
"""How often the values of a weight pass through memory while it is rounded, coded, compared and written."""
_SEARCHED = 9
"""How many scales of a group are tried where they are searched."""


def compression_cost(spec: GlmSpec, recipe: Recipe, limit: int, folder: Path | None = None, *,
                     calibration_tokens: int | None = None, length: int = 128, dtype: ComputeType | None = None
                     ) -> Cost:
    """Estimate ``autoglm compress``: the worst of its steps, and of the measurements before and after them.

    Args:
        folder: of the bundle; its weights may be missing.
        calibration_tokens: that the model is shown; None: as many as the method takes at most of texts of `length`.
        length: tokens of a text.
        dtype: of the parent's weights; None: as its configuration says, else fp32.

    Raises:
        BundleError, GraphError, ResourceError, MissingExtraError: it could not be loaded for measuring.
    """
    steps = [step for way in ways(spec, recipe) for step in way]
    found: dict[str, dict[str, int]] = {}
    seconds = 0.0
    for step in steps:
        took, parts = _step(step, spec, calibration_tokens, length, recipe)
        seconds += took
        for moment, sizes in parts.items():
            name = f"{step.method}: {moment}"
            if name not in found or sum(found[name].values()) < sum(sizes.values()):
                found[name] = sizes
    found["measuring"] = _measuring(spec, recipe, folder, length, dtype)
    libraries = library_bytes("compress")
    found = {moment: {**parts, LIBRARIES: libraries} for moment, parts in found.items()}
    peak = max(sum(parts.values()) for parts in found.values())
    remedies = list[tuple[str, int]]()
    if peak > limit and any(not isinstance(step, RtnSettings) for step in steps):
        least = {f"rtn: {moment}": sum(parts.values()) + libraries
                 for moment, parts in quantising(spec, RtnSettings(), None).items()}
        least["measuring"] = sum(found["measuring"].values())
        remedies.append(("--recipe rtn", max(least.values())))
    return Cost("compress", found, seconds, f"products at {_RATE * products_per_s() / 1e9:.0f} GFLOP/s, memory at "
                f"{bytes_per_s() / 1e9:.1f} GB/s, both measured now; the measurements before and after are not counted",
                _named(spec, steps, calibration_tokens, length, recipe), limit, {}, tuple(remedies))


def _step(step: Step, spec: GlmSpec, tokens: int | None, length: int, recipe: Recipe
          ) -> tuple[float, dict[str, dict[str, int]]]:
    """Seconds, and parts at the worst moments."""
    if isinstance(step, QUANTISING):
        shown = _shown(step, spec, tokens, length, recipe)
        base = step.base if isinstance(step, MixedSettings) else step
        walked = None if isinstance(base, RtnSettings) else shown
        parts = quantising(spec, base, walked)
        states = {} if walked is None else {"calibration's states": state_bytes(spec, walked)}
        return _seconds(step, spec, shown), {moment: {**one, **states} for moment, one in parts.items()}
    if isinstance(step, KvSettings):
        return 0.0, {}
    if isinstance(step, MergeLoraSettings):
        return 0.0, {"merging": {"weights": 8 * spec.parameters}}
    step_size = step_of(TrainSettings().batch, length, 1)
    teacher = {"teacher": 4 * spec.parameters} if isinstance(step, DistilStep) else {"masks": spec.parameters}
    if isinstance(step, PruneSettings) and not step.recover.passes:
        return 0.0, {"pruning": {"weights": 8 * spec.parameters}}
    parts = footprint(Training(spec, TrainSettings(), step_size, dropout=0.1))
    return 0.0, {moment: {**one, **teacher} for moment, one in parts.items()}


def _shown(step: Step, spec: GlmSpec, tokens: int | None, length: int, recipe: Recipe) -> Shown | None:
    """What the calibration shows; None: nothing."""
    base = step.base if isinstance(step, MixedSettings) else step
    settings = getattr(base, "calibration", None) or getattr(step, "calibration", None)
    if settings is None:
        return None
    longest = min(settings.tokens, spec.max_positions, length)
    return Shown(tokens or longest * min(settings.samples, recipe.calibration), longest)


def _seconds(step: Step, spec: GlmSpec, shown: Shown | None) -> float:
    """Of a quantisation: every weight passes through memory, and what a method computes."""
    base = step.base if isinstance(step, MixedSettings) else step
    read, rate, weights = bytes_per_s(), _RATE * products_per_s(), spec.parameters
    passes = _RTN_PASSES * (_SEARCHED if getattr(base, "search", False) else 1)
    seconds = passes * 4 * weights / read
    if shown is None or isinstance(base, RtnSettings):
        return seconds
    places = list(slots(spec).values())
    walk = 1.5 * 2 * sum(slot.weights for slot in places) * shown.tokens
    sums = sum(2 * slot.columns**2 for slot in places) * shown.tokens
    factor = sum(slot.columns**3 * 5 / 3 for slot in places) if base.method == "gptq" else 0
    rounding = sum(2 * slot.weights * slot.columns for slot in places)
    tried = (getattr(base, "alphas", 0) + 1) * rounding / 4 if base.method == "awq" else rounding
    errors = 2 * sum(2 * min(slot.rows, 1024) * slot.columns**2 for slot in places)
    return seconds + spec.layers * (walk + sums + factor + tried + errors) / rate


def _measuring(spec: GlmSpec, recipe: Recipe, folder: Path | None, length: int, dtype: ComputeType | None
               ) -> dict[str, int]:
    """Two engines at once: the parent's, and the largest child's beside it."""
    settings = ProgramSettings(cache_tokens=_TOGETHER * LONGEST, max_wanted=_TOGETHER, dtype=dtype,
                               threads=len(os.sched_getaffinity(0)))
    plan = planned(spec, settings, folder)
    weights = folder if folder is not None and has_weights(folder) else None
    facts = weigh(with_cache(plan, _TOGETHER * min(LONGEST, length)), weights)
    return {"libraries at work": OVERHEAD_BYTES, "weights of the parent": facts.weight_bytes,
            "weights of the child": max(_child_bytes(spec, way, facts.weight_bytes) for way in ways(spec, recipe)),
            "keys and values": 2 * facts.cache_bytes, "activations": 2 * facts.activation_bytes,
            "logits that are compared": _LOGITS * _TOGETHER * spec.vocab_size}


def _child_bytes(spec: GlmSpec, steps: Sequence[Step], parent: int) -> int:
    """What a child's weights take in the engine: as its last quantisation stores them, else the parent's at most."""
    last = next((step for step in reversed(steps) if isinstance(step, QUANTISING)), None)
    if last is None:
        return parent
    mixed = last.average_bits if isinstance(last, MixedSettings) else None
    base = last.base if isinstance(last, MixedSettings) else last

    def stored(bits: int, columns: int) -> float:
        form = form_of(bits, base)
        return bits if form is None else form.stored_bits(columns)

    layer = sum(slot.weights * (mixed or stored(base.bits, slot.columns)) for slot in slots(spec).values())
    tables = [max(base.embedding_bits, base.head_bits)] if spec.tied else [base.embedding_bits, base.head_bits]
    table = spec.vocab_size * spec.hidden_size
    return int(spec.layers * layer + sum(table * stored(bits, spec.hidden_size) for bits in tables)) // 8


def _named(spec: GlmSpec, steps: list[Step], tokens: int | None, length: int, recipe: Recipe) -> dict[str, str]:
    shown = [one.tokens for step in steps if isinstance(step, QUANTISING)
             and (one := _shown(step, spec, tokens, length, recipe)) is not None]
    return {"model": f"{spec.parameters:,} parameters, {spec.layers} layers of width {spec.hidden_size}",
            "recipe": "auto" if recipe.recipe == "auto" else ", ".join(step.method for step in steps),
            "calibration": f"{max(shown):,} tokens" if shown else "none"}
