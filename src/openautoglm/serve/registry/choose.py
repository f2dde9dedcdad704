"""Which version answers a request: pure, from a picture of the registry in memory."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from openautoglm.serve.faults import NotFound
from openautoglm.serve.registry.find import no_alias, no_model, no_version
from openautoglm.serve.registry.names import CHAMPION, LATEST, Reference
from openautoglm.serve.registry.records import Model, Share, Version


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All models at one moment; `revision` counts the changes of the registry."""

    revision: int = -1
    models: Mapping[str, Model] = field(default_factory=dict)

    def model(self, name: str) -> Model:
        """Return a model; raises NotFound, with the nearest name, where there is none."""
        if name not in self.models:
            raise no_model(name, self.models)
        return self.models[name]

    def find(self, reference: Reference) -> Version:
        """Return the version named by number or alias; a bare name: `champion`, else the newest in production,
        else the newest. Archived ones answer nobody.

        Raises:
            NotFound: no such model, version or alias, or the version is archived.
        """
        model = self.model(reference.name)
        number = reference.number
        if number is None and reference.alias not in (None, LATEST):
            if reference.alias not in model.aliases:
                raise no_alias(model.name, str(reference.alias), [*model.aliases, LATEST])
            number = model.aliases[str(reference.alias)]
        if number is None:
            version = model.latest if reference.alias == LATEST else _default(model)
            if version is None:
                raise NotFound(f"model {model.name!r} has no version in use", where="model")
            return version
        if number not in model.versions:
            raise no_version(model.name, number, sorted(model.versions))
        if model.versions[number].stage == "archived":
            raise NotFound(f"{model.name}/{number} is archived", where="model")
        return model.versions[number]

    def choose(self, reference: Reference, key: str | None, dice: random.Random) -> Version:
        """Return the version that is to answer: a bare name goes by the model's route, all else by `find`.

        Args:
            key: requests with the same key get the same version as long as the weights let them.
        """
        if reference.number is None and reference.alias is None:
            model = self.model(reference.name)
            if model.route is not None and model.route.live:
                share = draw(model.name, model.route.live, key, dice)
                return model.versions[share.number]
        return self.find(reference)


def draw(name: str, shares: Sequence[Share], key: str | None, dice: random.Random) -> Share:
    """Draw a share by weight; with a key by weighted rendezvous hashing, so that a change of weights moves few keys.

    Source: Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005 (the logarithmic method).
    """
    if key is None:
        return dice.choices(shares, [share.weight for share in shares])[0]
    return min(shares, key=lambda share: -math.log(_unit(f"{name}\0{share.number}\0{key}")) / share.weight)


def _unit(text: str) -> float:
    """A number in (0, 1) from a text."""
    return (int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8]) + 0.5) / 2**64


def _default(model: Model) -> Version | None:
    if CHAMPION in model.aliases:
        return model.versions[model.aliases[CHAMPION]]
    newest_first = [model.versions[number] for number in sorted(model.versions, reverse=True)]
    production = next((version for version in newest_first if version.stage == "production"), None)
    return production or model.latest
