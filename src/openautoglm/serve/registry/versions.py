"""Models and their versions: registered, looked up, removed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.serve.faults import Conflict
from openautoglm.serve.registry import bundles
from openautoglm.serve.registry.audit import changed
from openautoglm.serve.registry.bundles import BundleStore
from openautoglm.serve.registry.database import Database
from openautoglm.serve.registry.find import by_reference, model_row
from openautoglm.serve.registry.names import Reference, check_name, parse
from openautoglm.serve.registry.records import Version
from openautoglm.serve.registry.tables import ALIASES, MODELS, SHARES, VERSIONS

_MOST_NOTE = 2000


class Versions:
    """Registers and removes versions; a number is never given twice."""

    def __init__(self, database: Database, store: BundleStore) -> None:
        self._database = database
        self._store = store

    def register(self, path: str | Path, name: str, *, by: str, copy: bool = True, note: str = "") -> Version:
        """Make the bundle at `path` the next version of the model `name`, which is made where it is new.

        A bundle that is a version of this model already is not registered again: that version is returned.

        Args:
            path: folder, ``.zip`` or ``.pkl``; its format and all hashes are checked.
            by: who does it, for the log.
            copy: keep the files in the registry's store; else they are read where they lie.

        Raises:
            BundleError: not a bundle, or a damaged one.
            DiskFull: no room for the copy. StoreLost: the database does not answer. Either way nothing is left.
        """
        check_name(name, where="--name")
        bundle = open_bundle(path)
        card = bundles.fingerprint(bundle.card)
        known = self._database.read(lambda connection: self._same(connection, name, card))
        if known is not None:
            return known
        location = self._store.put(bundle, name) if copy else str(Path(path).absolute())
        values = {"copied": copy, "location": location, "fingerprint": card, "note": _plain(note),
                  "size_bytes": bundles.size_bytes(bundle), "facts": json.dumps(_facts(bundle))}
        kept = False
        try:
            version = self._database.write(lambda connection: self._add(connection, name, values, by))
            kept = version.location == location
        finally:
            if copy and not kept and not self._stored(name, location):
                self._store.discard(_unregistered(name, location))
        return version

    def get(self, reference: str | Reference) -> Version:
        """Return the version that ``name/3`` or ``name@alias`` names; a bare name: the newest not archived.

        Raises:
            NotFound: there is no such model, version or alias; the nearest name is told.
            BadRequest: not a reference.
        """
        wanted = parse(reference) if isinstance(reference, str) else reference

        def look(connection: Connection) -> Version:
            model, row = by_reference(connection, wanted)
            return Version.of(row, model.name)

        return self._database.read(look)

    def locations(self) -> set[str]:
        """The folders of the store that belong to a version."""
        query = select(VERSIONS.c.location).where(VERSIONS.c.copied)
        return set(self._database.read(lambda connection: connection.execute(query).scalars().all()))

    def remove(self, reference: str | Reference, *, by: str) -> Version:
        """Take a version, named by its number, out of the registry; a copied bundle's files go with it.

        Raises:
            Conflict: an alias points at it or a route sends it traffic; the message says which.
        """
        wanted = parse(reference) if isinstance(reference, str) else reference
        if wanted.number is None:
            raise Conflict("a version is removed by its number", where="model", remedy=f"write {wanted.name}/3")

        def work(connection: Connection) -> Version:
            model, row = by_reference(connection, wanted, lock=True)
            _refuse_if_used(connection, model, row)
            connection.execute(delete(VERSIONS).where(VERSIONS.c.id == row.id))
            changed(self._database, connection, by, "version.remove", f"{model.name}/{row.number}",
                    fingerprint=row.fingerprint, location=row.location)
            return Version.of(row, model.name)

        gone = self._database.write(work)
        self._store.discard(gone)
        return gone

    def remove_model(self, name: str, *, by: str) -> list[Version]:
        """Take a model with all its versions, aliases and its route out of the registry."""
        def work(connection: Connection) -> list[Version]:
            model = model_row(connection, name, lock=True)
            rows = connection.execute(select(VERSIONS).where(VERSIONS.c.model_id == model.id)).all()
            connection.execute(delete(MODELS).where(MODELS.c.id == model.id))
            changed(self._database, connection, by, "model.remove", model.name,
                    versions=[row.number for row in rows])
            return [Version.of(row, model.name) for row in rows]

        gone = self._database.write(work)
        for version in gone:
            self._store.discard(version)
        return gone

    def _same(self, connection: Connection, name: str, card: str) -> Version | None:
        row = connection.execute(
            select(VERSIONS).join(MODELS, MODELS.c.id == VERSIONS.c.model_id)
            .where(MODELS.c.name == name, VERSIONS.c.fingerprint == card)).first()
        return None if row is None else Version.of(row, name)

    def _add(self, connection: Connection, name: str, values: dict[str, Any], by: str) -> Version:
        now_s = self._database.now()
        connection.execute(self._database.insert(MODELS).values(
            name=name, note="", created_s=now_s, next_number=1, route_revision=0, route_since_s=now_s)
            .on_conflict_do_nothing(index_elements=["name"]))
        model = model_row(connection, name, lock=True)
        again = self._same(connection, name, values["fingerprint"])
        if again is not None:  # registered by another while the files were copied
            return again
        connection.execute(update(MODELS).where(MODELS.c.id == model.id).values(next_number=model.next_number + 1))
        key = connection.execute(insert(VERSIONS).values(
            model_id=model.id, number=model.next_number, stage="none", created_s=now_s, created_by=by[:96],
            **values)).inserted_primary_key
        assert key is not None
        changed(self._database, connection, by, "version.register", f"{name}/{model.next_number}",
                fingerprint=values["fingerprint"], copied=values["copied"], location=values["location"])
        row = connection.execute(select(VERSIONS).where(VERSIONS.c.id == key[0])).one()
        return Version.of(row, name)

    def _stored(self, name: str, location: str) -> bool:
        """Whether a version has this folder: a commit whose answer was lost may have been made."""
        try:
            return location in self.locations()
        except Exception:  # nobody can tell now: the folder stays, and `sweep` looks at it another day
            return True


def _refuse_if_used(connection: Connection, model: Row[Any], row: Row[Any]) -> None:
    aliases = connection.execute(select(ALIASES.c.alias).where(ALIASES.c.version_id == row.id)).scalars().all()
    if aliases:
        raise Conflict(f"the alias {aliases[0]!r} points at {model.name}/{row.number}", where="model",
                       remedy=f"set it to another version, or drop it: autoglm models alias {model.name} "
                              f"{aliases[0]} --drop")
    share = connection.execute(select(SHARES.c.weight).where(SHARES.c.version_id == row.id)).scalar()
    if share:
        raise Conflict(f"the route of {model.name!r} sends traffic to version {row.number}", where="model",
                       remedy=f"set another route, or drop it: autoglm models route {model.name} --drop")


def _plain(note: str) -> str:
    """A remark as text that every database takes."""
    return note[:_MOST_NOTE].encode("utf-8", "replace").decode().replace("\0", "")


def _unregistered(name: str, location: str) -> Version:
    return Version(0, name, 0, True, location, "", 0, "none", "", 0.0, "")


def _facts(bundle: Bundle) -> dict[str, Any]:
    """What tables and listings show of a bundle; no paths, no texts."""
    spec, card = bundle.spec, bundle.card
    scores = {name: value for name, value in card.scores.items() if isinstance(value, int | float)}
    return {"family": spec.family, "parameters": spec.parameters, "dtype": card.dtype,
            "context": spec.max_positions, "vocabulary": spec.vocab_size, "scores": scores,
            "made": card.created, "openautoglm": card.versions.get("openautoglm", "")}
