"""What there is to be asked for: names become versions, and the wishes of operators are looked up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from openautoglm.serve.faults import BadRequest, NotFound, Unavailable
from openautoglm.serve.hosting.seats import label
from openautoglm.serve.registry.catalog import Catalog
from openautoglm.serve.registry.names import Reference, parse
from openautoglm.serve.registry.records import Model as Entry
from openautoglm.serve.registry.records import Version
from openautoglm.serve.service.models import Model
from openautoglm.serve.service.service import Service


class Shelf:
    """Reads the catalog's picture; nothing here waits."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    @property
    def wanted(self) -> tuple[Version, ...]:
        """Versions that operators want in memory."""
        return tuple(wish.version for wish in self._catalog.wishes
                     if wish.loaded and self.known(wish.version) and wish.version.stage != "archived")

    @property
    def pinned(self) -> frozenset[int]:
        """Ids of versions that stay in memory."""
        return frozenset(wish.version.id for wish in self._catalog.wishes if wish.pinned)

    def unwanted(self, version: Version) -> bool:
        """Whether an operator wants a version not to be in memory."""
        return any(not wish.loaded and wish.version.id == version.id for wish in self._catalog.wishes)

    def known(self, version: Version) -> bool:
        """Whether there still is such a version of this name, for use."""
        model = self._catalog.snapshot.models.get(version.model)
        there = model.versions.get(version.number) if model is not None else None
        return there is not None and there.id == version.id and there.stage != "archived"

    def choose(self, name: str | None, key: str | None) -> Version:
        """Return the version that is to answer.

        Args:
            name: ``name``, ``name/3``, ``name@champion``, with or without ``models:/``; None: the only model there is.
            key: requests of the same key go to the same version.

        Raises:
            BadRequest, NotFound: not a name, or nothing of that name.
            Unavailable: the registry was never read.
        """
        if name is not None:
            try:
                return self._catalog.choose(name, key)
            except NotFound as fault:
                raise NotFound(fault.message, where="model",
                               remedy="/v1/models lists what there is") from None
        models = self._catalog.snapshot.models
        if self._catalog.snapshot.revision < 0:
            raise Unavailable("the registry has not been read yet", retry_after_s=1)
        if len(models) != 1:
            raise BadRequest(f"is missing, and there are {len(models)} models", where="model",
                             remedy="name one; /v1/models lists what there is")
        return self._catalog.choose(next(iter(models)), key)

    def find(self, name: str, number: str | None = None) -> Version:
        """Return the version that an administrator names; of a plain name the one that answers without a route.

        Raises:
            BadRequest, NotFound: not a name, or nothing of that name.
        """
        return self._catalog.snapshot.find(parse(name if number is None else f"{name}/{number}"))

    def listed(self, loaded: Mapping[str, Service]) -> Sequence[Model]:
        """All names that can be asked for: models, their versions, their aliases."""
        found: list[Model] = []
        for entry in self._catalog.snapshot.models.values():
            found += self._names(entry, loaded)
        return found

    def _names(self, entry: Entry, loaded: Mapping[str, Service]) -> list[Model]:
        usable = [version for version in entry.versions.values()
                  if version.stage != "archived" and not self.unwanted(version)]
        numbers = {version.number for version in usable}
        names = {label(version): version for version in usable}
        names |= {f"{entry.name}@{alias}": entry.versions[number] for alias, number in entry.aliases.items()
                  if number in numbers}
        plain = self._default(entry)
        if plain is not None and plain.number in numbers:
            names = {entry.name: plain, **names}
        return [_model(name, version, loaded.get(label(version))) for name, version in names.items()]

    def _default(self, entry: Entry) -> Version | None:
        """The version of a plain name; where a route splits its traffic, that of most of it."""
        if entry.route is not None and entry.route.live:
            return entry.versions[max(entry.route.live, key=lambda share: share.weight).number]
        try:
            return self._catalog.snapshot.find(Reference(entry.name))
        except NotFound:
            return None


def _model(name: str, version: Version, service: Service | None) -> Model:
    if service is None:
        return Model(name, int(version.created_s))
    return Model(name, int(version.created_s), service.backend.facts.max_tokens, service.fingerprint)
