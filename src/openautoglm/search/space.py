"""The space of a search: named dimensions of numbers and choices.

A point is a mapping from every dimension's name to its value. Fixed dimensions stand in the point, but are
not searched. A derived dimension picks, by a share between 0 and 1, from options that depend on the others:
key-value heads among the divisors of the heads, say. So every share is a valid point and no trial is wasted.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from openautoglm.core.errors import SearchError
from openautoglm.search.settings import Override, Scalar

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value = Scalar
Point = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Float:
    """Real numbers from `low` to `high`, both included; uniform in the logarithm with `log`."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, slots=True)
class Int:
    """Whole numbers from `low` to `high`, both included, every `step`."""

    low: int
    high: int
    step: int = 1
    log: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values, without an order."""

    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Fixed:
    """One value, not searched."""

    value: Scalar


@dataclass(frozen=True, slots=True)
class Derived:
    """One of the options that the earlier dimensions of the point allow, lowest share first."""

    options: Callable[[Point], Sequence[Scalar]]


Dim = Float | Int | Choice | Fixed | Derived


@dataclass(frozen=True)
class Space:
    """Named dimensions, checked when built. SearchError names a faulty one."""

    dims: Mapping[str, Dim]

    def __post_init__(self) -> None:
        if not self.dims:
            raise SearchError("the space has no dimensions")
        for name, dim in self.dims.items():
            fault = _fault(dim)
            if fault:
                raise SearchError(fault, where=f"search.space.{name}")

    @property
    def searched(self) -> tuple[str, ...]:
        """Names of the dimensions that vary."""
        return tuple(name for name, dim in self.dims.items() if not isinstance(dim, Fixed))

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return Optuna's distributions of the dimensions that vary; a derived one is a share."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        found: dict[str, BaseDistribution] = {}
        for name, dim in self.dims.items():
            if isinstance(dim, Float):
                found[name] = FloatDistribution(dim.low, dim.high, log=dim.log)
            elif isinstance(dim, Int):
                high = dim.low + (dim.high - dim.low) // dim.step * dim.step
                found[name] = IntDistribution(dim.low, high, log=dim.log, step=dim.step)
            elif isinstance(dim, Choice):
                found[name] = CategoricalDistribution(dim.values)
            elif isinstance(dim, Derived):
                found[name] = FloatDistribution(0.0, 1.0)
        return found

    def point(self, drawn: Mapping[str, Value]) -> dict[str, Value]:
        """Return the point of drawn values: fixed values added, shares of derived dimensions resolved."""
        point: dict[str, Value] = {}
        for name, dim in self.dims.items():
            if isinstance(dim, Fixed):
                point[name] = dim.value
            elif isinstance(dim, Derived):
                options = dim.options(point)
                if not options:
                    raise SearchError(f"no option is left at {point}", where=f"search.space.{name}")
                point[name] = options[min(int(float(drawn[name]) * len(options)), len(options) - 1)]
            else:
                point[name] = drawn[name]
        return point

    def override(self, overrides: Mapping[str, Scalar | Override | tuple[Scalar, ...]]) -> Space:
        """Return the space with a user's dimensions in place. SearchError for a wrong name or value."""
        dims = dict(self.dims)
        for name, given in overrides.items():
            where = f"search.space.{name}"
            if name not in dims:
                near = difflib.get_close_matches(name, dims, n=1)
                remedy = f"did you mean {near[0]}?" if near else f"there are {', '.join(dims)}"
                raise SearchError("there is no such dimension", where=where, remedy=remedy)
            dims[name] = _overridden(dims[name], given, where)
        return Space(dims)

    def describe(self) -> dict[str, str]:
        """Return each dimension in words; equal spaces have equal descriptions."""
        return {name: "derived" if isinstance(dim, Derived) else str(dim) for name, dim in self.dims.items()}


def _fault(dim: Dim) -> str | None:
    if isinstance(dim, Choice) and not dim.values:
        return "there must be at least one choice"
    if isinstance(dim, Choice) and len(set(map(repr, dim.values))) < len(dim.values):
        return f"a choice stands twice in {list(dim.values)}"
    if isinstance(dim, Float | Int):
        if not (math.isfinite(dim.low) and math.isfinite(dim.high)):
            return f"the bounds {dim.low} and {dim.high} must be finite"
        if dim.low > dim.high:
            return f"low {dim.low} is above high {dim.high}"
        if dim.log and dim.low <= 0:
            return f"a logarithmic range must begin above 0, not at {dim.low}"
    if isinstance(dim, Int) and (dim.step < 1 or (dim.log and dim.step != 1)):
        return "step must be 1 or more, and 1 in a logarithmic range"
    return None


def _overridden(base: Dim, given: Scalar | Override | tuple[Scalar, ...], where: str) -> Dim:
    if isinstance(given, Override):
        return _from_override(base, given, where)
    if not isinstance(given, tuple):
        return Fixed(given)
    if isinstance(base, Float | Int) and len(given) == 2 and all(_number(value) for value in given):
        return _from_override(base, Override(low=float(given[0]), high=float(given[1])), where)
    return Choice(given)


def _from_override(base: Dim, given: Override, where: str) -> Dim:
    if given.choices is not None:
        if (given.low, given.high, given.log, given.step) != (None, None, None, None):
            raise SearchError("choices cannot stand beside low, high, log or step", where=where)
        return Choice(given.choices)
    if not isinstance(base, Float | Int):
        if given.low is None or given.high is None:
            raise SearchError("low and high are needed", where=where)
        whole = given.low == int(given.low) and given.high == int(given.high)
        base = Int(int(given.low), int(given.high)) if whole else Float(given.low, given.high)
    low = base.low if given.low is None else given.low
    high = base.high if given.high is None else given.high
    log = base.log if given.log is None else given.log
    if isinstance(base, Float):
        if given.step is not None:
            raise SearchError("step is for whole numbers", where=where)
        return replace(base, low=float(low), high=float(high), log=log)
    if low != int(low) or high != int(high):
        raise SearchError(f"[{low}, {high}] must be whole numbers", where=where)
    step = given.step if given.step is not None else 1 if log else base.step
    return Int(int(low), int(high), step, log)


def _number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
