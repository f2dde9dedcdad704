"""Options of a search."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from openautoglm.core.settings import Settings

Scalar = bool | int | float | str


class Override(Settings):
    """What a user puts in place of one dimension; give ``choices``, or ``low`` and ``high``.

    Attributes:
        low: smallest value.
        high: largest value.
        log: search evenly in the logarithm.
        step: step of whole numbers.
        choices: the values to choose from.
    """

    low: float | None = None
    high: float | None = None
    log: bool | None = None
    step: Annotated[int, Field(ge=1)] | None = None
    choices: Annotated[tuple[Scalar, ...], Field(min_length=1)] | None = None


class SearchSettings(Settings):
    """How long to search, for what, and how reproducibly."""

    enabled: bool = True
    trials: Annotated[int, Field(ge=1)] | None = None
    """Trials to train; points refused by a constraint before training do not count."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Time to spend on trials, counted over all resumes."""
    metric: str | None = None
    """Which of the objective's metrics chooses among completed trials; null: the validation loss."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    storage: str | None = None
    """Database URL (``postgresql+psycopg://...``, ``sqlite:///...``); null: a journal file in the folder."""
    name: Annotated[str, Field(min_length=1, max_length=200)] = "search"
    """Name of the study: two searches in one database need two names."""
    space: dict[str, Scalar | Override | tuple[Scalar, ...]] = Field(default_factory=dict)
    """By dimension: a fixed value, ``[low, high]``, a list of choices, or ``{low, high, log, step}``."""
    startup_trials: Annotated[int, Field(ge=10)] = 10
    """Random trials in each Hyperband bracket before its model (TPE) proposes."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """Hyperband's eta: one of so many trials goes on at each rung."""
    brackets: Annotated[int, Field(ge=1, le=10)] | None = None
    """Hyperband's brackets; null: as many as `trials` can fill with twice the start-up trials."""
