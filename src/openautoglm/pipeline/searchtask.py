"""The ``search`` section: the search room's options, and the share of the budget that it gets."""

from __future__ import annotations

from pydantic import Field

from openautoglm.pipeline.units import Count
from openautoglm.search.settings import SearchSettings


class SearchTask(SearchSettings):
    """The search over model shape and training settings.

    It runs where `enabled` is written as true, where `budget.trials` or anything in this section is given, or where
    `budget.minutes` is an hour and more.
    """

    enabled: bool = Field(
        default=True, description="Whether to search at all; left out, as said above.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of the draws; left out, the task's `seed`.")
    share: float = Field(default=0.5, gt=0, lt=1, description="Share of `budget.minutes` that the search may take.")
    trial_tokens: Count | None = Field(
        default=None,
        description="Training tokens of a whole trial (Hyperband's resource). Left out, the time decides.",
    )
    dev_cases: int = Field(
        default=100, ge=0, description="Validation records that a finished trial generates for, to measure `metric`; "
        "0 measures the loss only.")
