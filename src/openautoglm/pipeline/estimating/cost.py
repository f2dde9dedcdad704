"""The form of an estimate: parts of memory at the moments that may be the worst, time, and what would make it fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from openautoglm.pipeline.units import bytes_text, minutes_text

What = Literal["train", "compress", "serve"]
LIBRARIES = "interpreter and libraries"


@dataclass(frozen=True)
class Cost:
    """What something takes.

    Attributes:
        moments: by moment, by part, bytes; interpreter and libraries are a part.
        seconds: of the whole; None where it has no end.
        reckoned: how the time was reckoned.
        settings: on what the figures depend, as text.
        rates: further figures of speed, by name.
        limit_bytes: what there is, or what was asked to suffice.
        remedies: what would make it smaller, and the peak then; made only where it does not fit.
    """

    what: What
    moments: Mapping[str, Mapping[str, int]]
    seconds: float | None
    reckoned: str
    settings: Mapping[str, str]
    limit_bytes: int
    rates: Mapping[str, float] = field(default_factory=dict)
    remedies: tuple[tuple[str, int], ...] = ()

    @property
    def peak(self) -> str:
        """The worst moment."""
        return max(self.moments, key=lambda moment: sum(self.moments[moment].values()))

    @property
    def peak_bytes(self) -> int:
        """Bytes of the process at its worst moment."""
        return sum(self.moments[self.peak].values())

    @property
    def parts(self) -> Mapping[str, int]:
        """What the peak consists of."""
        return self.moments[self.peak]

    @property
    def fits(self) -> bool:
        """Whether the peak is within the limit."""
        return self.peak_bytes <= self.limit_bytes

    @property
    def remedy(self) -> str:
        """What to do where it does not fit; empty where it does."""
        if self.fits:
            return ""
        if not self.remedies:
            return "take a smaller model, or a machine with more memory"
        enough = [one for one in self.remedies if one[1] <= self.limit_bytes]
        named = "; or ".join(f"{text} ({bytes_text(size)})" for text, size in enough or self.remedies)
        return named if enough else f"none of these is enough alone: {named}"

    def document(self) -> dict[str, Any]:
        """All of it as JSON holds it."""
        return {"what": self.what, "peak_bytes": self.peak_bytes, "peak": self.peak, "fits": self.fits,
                "limit_bytes": self.limit_bytes, "moments": {name: dict(parts) for name, parts in self.moments.items()},
                "seconds": self.seconds, "reckoned": self.reckoned, "rates": dict(self.rates),
                "settings": dict(self.settings),
                "remedies": [{"do": text, "peak_bytes": size} for text, size in self.remedies]}

    @property
    def time_text(self) -> str:
        """The time, or the rates where it has no end."""
        if self.seconds is not None:
            return f"about {minutes_text(self.seconds / 60)}"
        return ", ".join(f"{value:,.0f} {name}" for name, value in self.rates.items())
