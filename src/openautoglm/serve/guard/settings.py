"""The guard's own options."""

from __future__ import annotations

from pydantic import Field

from openautoglm.core.settings import Settings


class GuardSettings(Settings):
    """How keys are checked, and what a key may use where it says nothing itself.

    Attributes:
        cached_s: how long a successful check is believed without asking the database; so long a revoked key may
            still work on another server.
        remembered_s: how long a key that was seen is known again without computing its hash; the database is asked.
        outage_s: how long a successful check is believed while the database does not answer.
        remembered: keys kept in mind.
        requests_per_min, tokens_per_min: of one key; None: no bound.
        failures_per_min: wrong keys from one address before it has to wait.
        hash_at_once, hash_waiting: hashes computed at a time, and callers that may wait for one.
    """

    cached_s: float = Field(default=10.0, ge=0, le=300)
    remembered_s: float = Field(default=900.0, ge=0, le=24 * 3600)
    outage_s: float = Field(default=300.0, ge=0, le=24 * 3600)
    remembered: int = Field(default=10_000, ge=1)
    requests_per_min: int | None = Field(default=None, ge=1)
    tokens_per_min: int | None = Field(default=None, ge=1)
    failures_per_min: int = Field(default=30, ge=1)
    hash_at_once: int = Field(default=2, ge=1, le=64)
    hash_waiting: int = Field(default=256, ge=1)
