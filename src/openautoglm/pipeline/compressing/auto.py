"""``recipe: auto``: candidates from the cheapest on, and the choice among what was tried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from openautoglm.compress.settings import AwqSettings, GptqSettings, MixedSettings, RtnSettings
from openautoglm.core.errors import CompressError
from openautoglm.models.spec import GlmSpec
from openautoglm.pipeline.compressing.measure import Measured
from openautoglm.pipeline.compressing.recipe import KvSettings, Recipe, Step, steps_of
from openautoglm.pipeline.units import bytes_text

_MIXED = (5.0, 6.5)


@dataclass(frozen=True)
class Plan:
    """Something to try.

    Attributes:
        bits: of a weight, about: what is as small as something that was good enough already is needless.
    """

    name: str
    steps: tuple[Step, ...]
    bits: float

    def needless(self, tried: Sequence[Candidate], quality: float) -> bool:
        """Whether something of no more bits was good enough already; plans come in the order of their cost."""
        return any(one.kept >= quality and one.bits <= self.bits and one.plain == (len(self.steps) == 1)
                   for one in tried)


@dataclass(frozen=True)
class Candidate:
    """Something that was tried.

    Attributes:
        kept: share of the parent's metric.
        fits: whether all targets are met.
    """

    name: str
    steps: tuple[Step, ...]
    measured: Measured
    kept: float
    fits: bool

    @property
    def bits(self) -> float:
        """Of a weight, about."""
        return _bits(self.steps[0])

    @property
    def plain(self) -> bool:
        """Whether weights alone were changed."""
        return len(self.steps) == 1


@dataclass(frozen=True)
class Choice:
    """What was tried, and which was taken for what reasons; None was where none met all targets."""

    tried: tuple[Candidate, ...]
    chosen: Candidate | None
    reasons: tuple[str, ...]

    @property
    def front(self) -> tuple[Candidate, ...]:
        """The candidates that no other one beats in size, quality and speed at once (Pareto)."""
        return tuple(one for one in self.tried if not any(_beats(other, one) for other in self.tried))

    def told(self) -> dict[str, Any]:
        """As plain values, for the card."""
        front = {one.name for one in self.front}
        return {"chosen": self.chosen and self.chosen.name, "reasons": list(self.reasons), "tried": [
            {"name": one.name, "kept": one.kept, "fits": one.fits, "pareto": one.name in front,
             "size_bytes": one.measured.size_bytes, "peak_bytes": one.measured.peak_bytes, "kl": one.measured.kl,
             "tokens_per_s": one.measured.tokens_per_s} for one in self.tried]}


class NoneFitsError(CompressError):
    """No candidate meets all targets; ``choice`` holds what was tried."""

    def __init__(self, tried: Sequence[Candidate]) -> None:
        best = max(tried, key=lambda one: one.kept, default=None)
        nearest = f"; {best.name} keeps {best.kept:.3f} with {bytes_text(best.measured.size_bytes)}" if best else ""
        super().__init__(f"none of {len(tried)} candidates meets all targets{nearest}", where="recipe",
                         remedy="ask for less quality, or allow more memory or size; or give steps of your own")
        self.choice = Choice(tuple(tried), None, (self.message,))


def candidates(spec: GlmSpec, recipe: Recipe) -> Iterator[Plan]:
    """What is tried, the cheapest to make first; with a target of memory each with keys and values in int8 too."""
    widths = (spec.hidden_size, spec.query_size, spec.ffn_size)
    group = next((size for size in (32, 64, 128) if all(width % size == 0 for width in widths)), 0)
    form: dict[str, Any] = {"group": group}
    steps: list[tuple[str, Step]] = [
        ("int8", RtnSettings(bits=8, **form)), ("int4 rtn", RtnSettings(**form)),
        ("int4 gptq", GptqSettings(**form)), ("int4 awq", AwqSettings(**form))]
    if group:
        steps += [(f"mixed {bits:g}", MixedSettings(average_bits=bits, base=GptqSettings(**form))) for bits in _MIXED]
    plans = [Plan(name, (step,), _bits(step)) for name, step in steps]
    if recipe.memory is not None:
        plans += [Plan(f"{plan.name}, kv int8", (*plan.steps, KvSettings()), plan.bits) for plan in plans]
    yield from plans


def ways(spec: GlmSpec, recipe: Recipe) -> list[Sequence[Step]]:
    """The steps of every candidate of ``auto``, or those of the recipe as the only way."""
    return [plan.steps for plan in candidates(spec, recipe)] if recipe.recipe == "auto" else [steps_of(recipe)]


def settled(last: Candidate, recipe: Recipe) -> bool:
    """Whether nothing more need be tried: targets were given, and all are met."""
    return last.fits and any(target is not None for target in (recipe.memory, recipe.bundle_size, recipe.tokens_per_s))


def choose(tried: Sequence[Candidate], recipe: Recipe, metric: str) -> Choice:
    """The smallest that meets all targets.

    Raises:
        NoneFitsError: none does; the nearest is named.
    """
    fitting = [one for one in tried if one.fits]
    if not fitting:
        raise NoneFitsError(tried)
    chosen = min(fitting, key=lambda one: (one.measured.size_bytes, -one.kept))
    reasons = [f"it keeps {chosen.kept:.3f} of {metric}, at least {recipe.quality:g} was asked",
               f"it is the smallest of {len(fitting)} that meet all targets: {bytes_text(chosen.measured.size_bytes)}"]
    failed = [one for one in tried if not one.fits and one.measured.size_bytes < chosen.measured.size_bytes]
    reasons += [f"{one.name} is smaller ({bytes_text(one.measured.size_bytes)}) but misses a target: it keeps "
                f"{one.kept:.3f}" for one in failed]
    return Choice(tuple(tried), chosen, tuple(reasons))


def _bits(step: Step) -> float:
    if isinstance(step, MixedSettings):
        return step.average_bits
    return float(getattr(step, "bits", 32))


def _beats(one: Candidate, other: Candidate) -> bool:
    ours, theirs = _figures(one), _figures(other)
    return ours != theirs and all(a >= b for a, b in zip(ours, theirs, strict=True))


def _figures(one: Candidate) -> tuple[float, ...]:
    return -one.measured.size_bytes, one.kept, one.measured.tokens_per_s["1"]
