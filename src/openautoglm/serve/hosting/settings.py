"""Options of a server of many models."""

from __future__ import annotations

from pydantic import Field

from openautoglm.core.settings import Settings


class HostingSettings(Settings):
    """What may be in memory, and what happens where loading fails.

    Attributes:
        memory_bytes: of weights and caches of all loaded models together; None: no bound.
        room_s: how long a model that is asked for waits until others are idle and can leave.
        warm_s: how long the first token of a model may take after it was loaded.
        retry_s, most_retry_s: after a failure it is not loaded again for so long; twice as long after each further
            one, to that bound.
        look_s: pause between two looks at what operators want in memory.
    """

    memory_bytes: int | None = Field(default=None, gt=0)
    room_s: float = Field(default=30.0, ge=0)
    warm_s: float = Field(default=60.0, gt=0)
    retry_s: float = Field(default=2.0, gt=0)
    most_retry_s: float = Field(default=300.0, gt=0)
    look_s: float = Field(default=1.0, gt=0, le=60)
