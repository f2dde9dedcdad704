"""What a sweep varies: settings of the engine (a point), and how much is asked of it (a load)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from openautoglm.bench.settings import LoadSettings
from openautoglm.core.files import fingerprint
from openautoglm.core.settings import Settings
from openautoglm.engine.open import ProgramSettings
from openautoglm.engine.settings import EngineSettings

_FORMAT = re.compile(r"stored|fp32|bf16|(int8|int4)(:(0|32|64|128))?")
_ROWS, _BATCH = 512, 32


class Point(Settings):
    """One set of engine settings.

    Attributes:
        max_batch: sequences that run together.
        max_batch_tokens: token rows of a step.
        threads: that compute; the cores there are when None.
        format: of the weights: ``stored``, ``fp32``, ``bf16``, ``int8``, ``int4``, with a group as in ``int4:64``.
        max_wait: seconds that a request waits for a full batch; 0 for no waiting.
    """

    max_batch: int = Field(default=_BATCH, ge=1)
    max_batch_tokens: int = Field(default=_ROWS, ge=1)
    threads: int | None = Field(default=None, ge=1)
    format: str = "stored"
    max_wait: float = Field(default=0.0, ge=0)

    @field_validator("format")
    @classmethod
    def _known(cls, value: str) -> str:
        if not _FORMAT.fullmatch(value):
            raise ValueError(f"no format {value!r}; there are stored, fp32, bf16, int8, int4, and groups as in int4:64")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.max_batch > self.max_batch_tokens:
            raise ValueError(f"max_batch {self.max_batch} needs as many rows, max_batch_tokens is "
                             f"{self.max_batch_tokens}")
        return self

    def program(self, target: str = "auto") -> ProgramSettings:
        """How the model is loaded."""
        name, _, group = self.format.partition(":")
        options: dict[str, Any] = {"target": target, "threads": self.threads, "max_rows": self.max_batch_tokens,
                                   "max_wanted": self.max_batch}
        if name in ("fp32", "bf16"):
            options["dtype"] = name
        elif name != "stored":
            options["quantise"] = {"format": name, **({"group": int(group)} if group else {})}
        return ProgramSettings.model_validate(options)

    def engine(self) -> EngineSettings:
        """How the engine batches. Whoever waits, waits for a full batch: without that, `max_wait` means nothing."""
        return EngineSettings(max_batch=self.max_batch, max_batch_tokens=self.max_batch_tokens,
                              max_wait=self.max_wait, min_batch=self.max_batch if self.max_wait else 1)

    def differs(self, axes: Axes) -> str:
        """Its values on the axes that vary, in words."""
        shown = {name: getattr(self, name) for name, values in axes if len(values) > 1}
        return ", ".join(f"{name} {'all' if value is None else value}" for name, value in shown.items()) or "as given"


class Axes(Settings):
    """Values to be tried; all their combinations are."""

    max_batch: tuple[int, ...] = (_BATCH,)
    max_batch_tokens: tuple[int, ...] = (_ROWS,)
    threads: tuple[int | None, ...] = (None,)
    format: tuple[str, ...] = ("stored",)
    max_wait: tuple[float, ...] = (0.0,)

    def points(self) -> list[Point]:
        """All combinations whose batch fits its rows, in a stable order.

        Raises:
            ValidationError: a value is out of its range.
        """
        names = [name for name, _ in self]
        every = (dict(zip(names, values, strict=True))
                 for values in itertools.product(*(dict.fromkeys(values) for _, values in self)))
        return [Point.model_validate(one) for one in every if one["max_batch"] <= one["max_batch_tokens"]]


class Loads(Settings):
    """How much is asked: numbers of clients (closed loops), or requests per second (open loops)."""

    clients: tuple[int, ...] = ()
    rates: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.clients) == bool(self.rates):
            raise ValueError("give clients or rates, one of them")
        if any(not amount > 0 for amount in (*self.clients, *self.rates)):
            raise ValueError("numbers of clients and rates are above 0")
        return self

    @property
    def unit(self) -> str:
        """``clients`` or ``requests/s``."""
        return "clients" if self.clients else "requests/s"

    def amounts(self) -> tuple[float, ...]:
        """The loads, smallest first."""
        return tuple(sorted(set(self.clients or self.rates)))

    def apply(self, settings: LoadSettings, amount: float) -> LoadSettings:
        """The settings of one load. Each has random numbers of its own, so that none finds its prompts cached."""
        arrivals = settings.arrivals.model_dump()
        change = {"max_concurrency": int(amount)} if self.clients else {"request_rate": amount}
        place = self.amounts().index(amount)
        return LoadSettings.model_validate({**settings.model_dump(), "arrivals": {**arrivals, **change},
                                            "seed": settings.seed + 1000 * place})


class SweepSettings(Settings):
    """A whole sweep; `load` says what all loads have in common."""

    axes: Axes = Field(default_factory=Axes)
    loads: Loads
    load: LoadSettings = Field(default_factory=LoadSettings)
    target: str = "auto"

    def runs(self) -> Iterator[tuple[Point, float]]:
        """Every point under every load."""
        yield from itertools.product(self.axes.points(), self.loads.amounts())

    @property
    def common(self) -> dict[str, Any]:
        """What results must share to be comparable."""
        return {"load": self.load.model_dump(mode="json"), "unit": self.loads.unit, "target": self.target}


def run_key(point: Point, amount: float, unit: str) -> str:
    """What identifies a run within its sweep."""
    return fingerprint([point.model_dump(mode="json"), amount, unit])
