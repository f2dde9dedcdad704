"""How the requests of each version ended: counts by minute and class of latency, which add up over servers and time."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, func, select

from openautoglm.serve.registry.database import Database
from openautoglm.serve.registry.tables import OUTCOMES, VERSIONS

PER_DECADE, FIRST_S, DECADES = 10, 1e-3, 6
EDGES_S = tuple(FIRST_S * 10 ** (step / PER_DECADE) for step in range(PER_DECADE * DECADES + 1))  # 1 ms to 1000 s
ERROR, UNTIMED = -1, -2
MINUTE_S = 60
_KEEP_MINUTES = 7 * 24 * 60


def bucket_of(latency_s: float | None, *, ok: bool) -> int:
    """The class of one request: its latency's, `ERROR`, or `UNTIMED` where it went well without a latency."""
    if not ok:
        return ERROR
    if latency_s is None or not math.isfinite(latency_s):
        return UNTIMED
    return bisect.bisect_left(EDGES_S, latency_s)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Requests of one version by class; bucket b holds latencies above ``EDGES_S[b - 1]``, up to ``EDGES_S[b]``."""

    counts: Mapping[int, int] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(self.counts.values())

    @property
    def errors(self) -> int:
        """Those that failed through our fault."""
        return self.counts.get(ERROR, 0)

    @property
    def timed(self) -> int:
        """Those with a latency."""
        return sum(count for bucket, count in self.counts.items() if bucket >= 0)

    def quantile_s(self, share: float) -> float | None:
        """An upper bound of the latency's quantile, at most 26 % above it; None where nothing was timed."""
        wanted, seen = math.ceil(share * self.timed), 0
        for bucket in sorted(bucket for bucket in self.counts if bucket >= 0):
            seen += self.counts[bucket]
            if seen >= wanted:
                return EDGES_S[min(bucket, len(EDGES_S) - 1)]
        return None

    def slower_than(self, limit_s: float) -> int:
        """Requests that were surely slower than `limit_s`."""
        return sum(count for bucket, count in self.counts.items()
                   if bucket > 0 and EDGES_S[bucket - 1] >= limit_s * (1 - 1e-9))


Counts = Mapping[tuple[int, int, int], int]  # (version id, minute, bucket) -> requests


class OutcomeStore:
    """Adds up counts of all servers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, counts: Counts) -> None:
        """Add counts; those of versions that are gone meanwhile are dropped."""
        def work(connection: Connection) -> None:
            asked = {version for version, _, _ in counts}
            there = set(connection.execute(select(VERSIONS.c.id).where(VERSIONS.c.id.in_(asked))).scalars())
            step = self._database.insert(OUTCOMES)
            step = step.on_conflict_do_update(index_elements=["version_id", "minute", "bucket"],
                                              set_={"count": OUTCOMES.c.count + step.excluded.count})
            rows = [{"version_id": version, "minute": minute, "bucket": bucket, "count": count}
                    for (version, minute, bucket), count in sorted(counts.items()) if version in there]
            if rows:
                connection.execute(step, rows)

        if counts:
            self._database.write(work)

    def totals(self, versions: Iterable[int], *, since_s: float) -> dict[int, Outcomes]:
        """Return the outcomes of each version from the minute of `since_s` on; every one asked for is there."""
        wanted = sorted(set(versions))
        query = (select(OUTCOMES.c.version_id, OUTCOMES.c.bucket, func.sum(OUTCOMES.c.count))
                 .where(OUTCOMES.c.version_id.in_(wanted), OUTCOMES.c.minute >= int(since_s // MINUTE_S))
                 .group_by(OUTCOMES.c.version_id, OUTCOMES.c.bucket))
        found: dict[int, Counter[int]] = {version: Counter() for version in wanted}
        for version, bucket, count in self._database.read(lambda connection: connection.execute(query).all()):
            found[version][bucket] = int(count)
        return {version: Outcomes(dict(counts)) for version, counts in found.items()}

    def prune(self) -> int:
        """Remove what is older than a week; return how many rows."""
        oldest = int(self._database.now() // MINUTE_S) - _KEEP_MINUTES
        return self._database.write(
            lambda connection: connection.execute(delete(OUTCOMES).where(OUTCOMES.c.minute < oldest)).rowcount)
