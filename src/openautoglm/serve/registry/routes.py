"""Routes: how the traffic of a model's plain name is split between its versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from openautoglm.serve.faults import BadRequest, Conflict, NotFound
from openautoglm.serve.registry.audit import changed
from openautoglm.serve.registry.database import Database
from openautoglm.serve.registry.find import model_row, version_row
from openautoglm.serve.registry.names import nearest
from openautoglm.serve.registry.records import Route, Share
from openautoglm.serve.registry.tables import MODELS, SHARES, VERSIONS

MOST_WEIGHT, MOST_SHARES = 10_000, 16
_EXAMPLE = "write for example 3=90 4=10"


class Routes:
    """Sets, drops and rolls back routes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def set(self, name: str, weights: Mapping[int, int], *, by: str, baseline: int | None = None) -> Route:
        """Split the model's traffic by `weights`, version number to weight; only their proportion counts.

        Args:
            baseline: the version that the others are compared with; by default that of the greatest weight.

        Raises:
            BadRequest: a weight out of bounds, too many versions, or a baseline without traffic.
            NotFound: no such model or version. Conflict: a version is archived.
        """
        _check(weights, baseline)
        chosen = baseline if baseline is not None else max(sorted(weights), key=lambda number: weights[number])

        def work(connection: Connection) -> Route:
            model = model_row(connection, name, lock=True)
            rows = {number: version_row(connection, model, number) for number in sorted(weights)}
            archived = next((number for number, row in rows.items() if row.stage == "archived"), None)
            if archived is not None:
                raise Conflict(f"{model.name}/{archived} is archived", where="route",
                               remedy=f"take it out first: autoglm models stage {model.name}/{archived} staging")
            connection.execute(delete(SHARES).where(SHARES.c.model_id == model.id))
            connection.execute(insert(SHARES), [
                {"model_id": model.id, "version_id": row.id, "weight": weights[number], "withdrawn": "",
                 "baseline": number == chosen} for number, row in rows.items()])
            self._mark(connection, model)
            changed(self._database, connection, by, "route.set", model.name, baseline=chosen,
                    weights={str(number): weights[number] for number in rows})
            return _found(_read(connection, model.id))

        return self._database.write(work)

    def get(self, name: str) -> Route | None:
        """Return the model's route, None where it has none."""
        return self._database.read(lambda connection: _read(connection, model_row(connection, name).id))

    def drop(self, name: str, *, by: str) -> None:
        """Take the route away; raises NotFound where there is none."""
        def work(connection: Connection) -> None:
            model = model_row(connection, name, lock=True)
            if _read(connection, model.id) is None:
                raise NotFound(f"model {model.name!r} has no route", where="route")
            connection.execute(delete(SHARES).where(SHARES.c.model_id == model.id))
            self._mark(connection, model)
            changed(self._database, connection, by, "route.drop", model.name)

        self._database.write(work)

    def roll_back(self, name: str, number: int, *, revision: int, reason: str, by: str) -> bool:
        """Take the traffic from a version on trial; the others share it by their weights.

        Nothing happens, and False is returned, where the route is no longer at `revision`: another server was
        faster, or an operator has changed it meanwhile.
        """
        def work(connection: Connection) -> bool:
            model = model_row(connection, name, lock=True)
            route = _read(connection, model.id)
            if route is None or model.route_revision != revision:
                return False
            if number not in {share.number for share in route.candidates}:
                return False
            row = version_row(connection, model, number)
            connection.execute(update(SHARES).where(SHARES.c.version_id == row.id)
                               .values(weight=0, withdrawn=reason[:300]))
            self._mark(connection, model)
            changed(self._database, connection, by, "route.rollback", f"{model.name}/{number}", reason=reason[:300])
            return True

        return self._database.write(work)

    def _mark(self, connection: Connection, model: Row[Any]) -> None:
        """A new revision, judged from now on only."""
        connection.execute(update(MODELS).where(MODELS.c.id == model.id).values(
            route_revision=model.route_revision + 1, route_since_s=self._database.now()))


def parse_weights(items: list[str]) -> dict[int, int]:
    """Read ``["3=90", "4=10"]``; raises BadRequest for anything else."""
    weights: dict[int, int] = {}
    for item in items:
        number, equals, weight = item.partition("=")
        if not (equals and number.isdecimal() and weight.isdecimal() and len(item) < 20):
            raise BadRequest(f"{item[:40]!r} is not VERSION=WEIGHT", where="route", remedy=_EXAMPLE)
        if int(number) in weights:
            raise BadRequest(f"version {int(number)} is named twice", where="route")
        weights[int(number)] = int(weight)
    return weights


def _check(weights: Mapping[int, int], baseline: int | None) -> None:
    if not 1 <= len(weights) <= MOST_SHARES:
        raise BadRequest(f"a route has 1 to {MOST_SHARES} versions", where="route", remedy=_EXAMPLE)
    wrong = next((number for number, weight in weights.items() if not 1 <= weight <= MOST_WEIGHT), None)
    if wrong is not None:
        raise BadRequest(f"the weight of version {wrong} is not between 1 and {MOST_WEIGHT:,}", where="route")
    if baseline is not None and baseline not in weights:
        raise BadRequest(f"the baseline {baseline} has no traffic{nearest(str(baseline), map(str, weights))}",
                         where="baseline", remedy="give it a weight")


def _read(connection: Connection, model_id: int) -> Route | None:
    model = connection.execute(select(MODELS).where(MODELS.c.id == model_id)).one()
    rows = connection.execute(
        select(VERSIONS.c.number, SHARES).join(VERSIONS, VERSIONS.c.id == SHARES.c.version_id)
        .where(SHARES.c.model_id == model_id).order_by(VERSIONS.c.number)).all()
    if not rows:
        return None
    return Route(tuple(Share(row.number, row.weight, row.baseline, row.withdrawn) for row in rows),
                 model.route_revision, model.route_since_s)


def _found(route: Route | None) -> Route:
    assert route is not None
    return route
