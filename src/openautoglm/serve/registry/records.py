"""What the registry hands out: frozen values, no connection behind them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row

from openautoglm.serve.registry.names import SCHEME


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a model.

    Attributes:
        id: the registry's own key, never given twice.
        model, number: what it is called.
        copied: whether the registry keeps the bundle itself, or only knows where it lies.
        location: name of a folder in the store, or the absolute path of the bundle.
        fingerprint: SHA-256 of what the bundle's card says, the hashes of all files but packed weights among it.
        size_bytes: of all files of the bundle.
        facts: family, parameters, dtype, scores and when it was made, from the card.
        created_s: seconds since 1970.
    """

    id: int
    model: str
    number: int
    copied: bool
    location: str
    fingerprint: str
    size_bytes: int
    stage: str
    note: str
    created_s: float
    created_by: str
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def uri(self) -> str:
        """``models:/name/3``."""
        return f"{SCHEME}{self.model}/{self.number}"

    @staticmethod
    def of(row: Row[Any], model: str) -> Version:
        """Read a row of the table of versions."""
        return Version(row.id, model, row.number, row.copied, row.location, row.fingerprint, row.size_bytes,
                       row.stage, row.note, row.created_s, row.created_by, json.loads(row.facts))


@dataclass(frozen=True, slots=True)
class Share:
    """How much of a model's traffic one version gets; `withdrawn` says why it was rolled back, if it was."""

    number: int
    weight: int
    baseline: bool = False
    withdrawn: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """How a model's traffic is split; a new revision with every change."""

    shares: tuple[Share, ...]
    revision: int
    since_s: float

    @property
    def live(self) -> tuple[Share, ...]:
        """The shares that get traffic."""
        return tuple(share for share in self.shares if share.weight > 0)

    @property
    def baseline(self) -> Share | None:
        """The version that the others are compared with."""
        return next((share for share in self.live if share.baseline), None)

    @property
    def candidates(self) -> tuple[Share, ...]:
        """The versions that are on trial."""
        return tuple(share for share in self.live if not share.baseline) if self.baseline else ()


@dataclass(frozen=True, slots=True)
class Model:
    """A model with all that is known of it; versions by number, oldest first."""

    name: str
    note: str
    created_s: float
    versions: Mapping[int, Version]
    aliases: Mapping[str, int]
    route: Route | None = None

    @property
    def latest(self) -> Version | None:
        """The newest version that is not archived."""
        return next((one for _, one in sorted(self.versions.items(), reverse=True) if one.stage != "archived"), None)

    def named(self, number: int) -> tuple[str, ...]:
        """The aliases of a version."""
        return tuple(sorted(alias for alias, at in self.aliases.items() if at == number))
