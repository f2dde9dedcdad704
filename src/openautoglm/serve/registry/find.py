"""Finds models and versions by name inside a transaction, and names the nearest where there is none."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select

from openautoglm.serve.faults import NotFound
from openautoglm.serve.registry.names import LATEST, Reference, check_name, nearest
from openautoglm.serve.registry.tables import ALIASES, MODELS, VERSIONS


def model_row(connection: Connection, name: str, *, lock: bool = False) -> Row[Any]:
    """The model's row; `lock` keeps other writers of this model away until the transaction ends.

    Raises:
        NotFound: there is none of this name; the nearest name is told.
    """
    query = select(MODELS).where(MODELS.c.name == check_name(name))
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise no_model(name, connection.execute(select(MODELS.c.name)).scalars().all())
    return row


def no_model(name: str, known: Any) -> NotFound:
    """The fault for a name that no model has."""
    return NotFound(f"there is no model {name!r}{nearest(name, known)}", where="model")


def version_row(connection: Connection, model: Row[Any], number: int) -> Row[Any]:
    """The row of version `number`; raises NotFound where there is none."""
    row = connection.execute(select(VERSIONS).where(
        VERSIONS.c.model_id == model.id, VERSIONS.c.number == number)).one_or_none()
    if row is None:
        there = connection.execute(select(VERSIONS.c.number).where(VERSIONS.c.model_id == model.id)
                                   .order_by(VERSIONS.c.number)).scalars().all()
        raise no_version(model.name, number, there)
    return row


def no_version(name: str, number: int, there: Any) -> NotFound:
    """The fault for a number that no version of the model has."""
    versions = ", ".join(map(str, list(there)[-10:])) or "none"
    return NotFound(f"model {name!r} has no version {number}; it has {versions}", where="model")


def no_alias(name: str, alias: str, known: Any) -> NotFound:
    """The fault for an alias that the model does not have."""
    return NotFound(f"model {name!r} has no alias {alias!r}{nearest(alias, known)}", where="model")


def by_reference(connection: Connection, reference: Reference, *, lock: bool = False) -> tuple[Row[Any], Row[Any]]:
    """The rows of model and version that `reference` names by number or alias; a bare name is its newest version."""
    model = model_row(connection, reference.name, lock=lock)
    if reference.number is not None:
        return model, version_row(connection, model, reference.number)
    if reference.alias in (None, LATEST):
        newest = connection.execute(
            select(VERSIONS).where(VERSIONS.c.model_id == model.id, VERSIONS.c.stage != "archived")
            .order_by(VERSIONS.c.number.desc()).limit(1)).one_or_none()
        if newest is None:
            raise NotFound(f"model {model.name!r} has no version that is not archived", where="model")
        return model, newest
    rows = connection.execute(select(ALIASES).where(ALIASES.c.model_id == model.id)).all()
    at = next((row.version_id for row in rows if row.alias == reference.alias), None)
    if at is None:
        raise no_alias(model.name, str(reference.alias), [row.alias for row in rows])
    return model, connection.execute(select(VERSIONS).where(VERSIONS.c.id == at)).one()
