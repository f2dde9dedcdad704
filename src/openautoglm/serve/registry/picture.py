"""Reads all models into memory, and only when something has changed."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sqlalchemy import Connection, select

from openautoglm.serve.registry.audit import CATALOG
from openautoglm.serve.registry.choose import Snapshot
from openautoglm.serve.registry.database import Database
from openautoglm.serve.registry.records import Model, Route, Share, Version
from openautoglm.serve.registry.tables import ALIASES, MARKS, MODELS, SHARES, VERSIONS


def revision(database: Database) -> int:
    """How many changes the registry has seen."""
    return database.read(_revision)


def snapshot(database: Database) -> Snapshot:
    """Return all models with versions, aliases and routes.

    The revision is read first: a change that comes meanwhile makes the picture too new for its revision, never too
    old, and it is read once more the next time.
    """
    return database.read(_picture)


def _revision(connection: Connection) -> int:
    return connection.execute(select(MARKS.c.value).where(MARKS.c.name == CATALOG)).scalar() or 0


def _picture(connection: Connection) -> Snapshot:
    at = _revision(connection)
    models = connection.execute(select(MODELS).order_by(MODELS.c.name)).all()
    names = {row.id: row.name for row in models}
    versions: dict[int, dict[int, Version]] = defaultdict(dict)
    by_id: dict[int, Version] = {}
    for row in connection.execute(select(VERSIONS).order_by(VERSIONS.c.number)):
        if row.model_id in names:
            by_id[row.id] = versions[row.model_id][row.number] = Version.of(row, names[row.model_id])
    aliases: dict[int, dict[str, int]] = defaultdict(dict)
    for row in connection.execute(select(ALIASES).order_by(ALIASES.c.alias)):
        if row.version_id in by_id:
            aliases[row.model_id][row.alias] = by_id[row.version_id].number
    shares: dict[int, list[Share]] = defaultdict(list)
    for row in connection.execute(select(SHARES)):
        if row.version_id in by_id:
            shares[row.model_id].append(
                Share(by_id[row.version_id].number, row.weight, row.baseline, row.withdrawn))
    return Snapshot(at, {row.name: Model(row.name, row.note, row.created_s, versions[row.id], aliases[row.id],
                                         _route(row, shares[row.id])) for row in models})


def _route(model: Any, shares: list[Share]) -> Route | None:
    if not shares:
        return None
    ordered = tuple(sorted(shares, key=lambda share: share.number))
    return Route(ordered, model.route_revision, model.route_since_s)
