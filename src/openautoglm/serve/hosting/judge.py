"""Tells the catalog how requests of a version ended, so that versions on trial can be compared with their baseline."""

from __future__ import annotations

from openautoglm.serve.registry.catalog import Catalog
from openautoglm.serve.registry.records import Version
from openautoglm.serve.service.values import Report

OURS = frozenset({"internal", "engine_lost", "unavailable"})
"""Kinds of faults that are the version's own."""
UNSERVED = frozenset({"client_gone", "overloaded", "rate_limited"})
"""Kinds of faults of requests that say nothing of the version: nobody waited for the answer, or it was not begun."""


class Judge:
    """An observer of one version's service.

    Latency is the time to the first token. A request whose time was over before that has waited at least so long, which
    counts; what clients do wrong counts as served.
    """

    def __init__(self, catalog: Catalog, version: Version) -> None:
        self._catalog, self._version = catalog, version

    def first_token(self, model: str, seconds: float) -> None:
        """Told again when the request ends."""

    def next_token(self, model: str, seconds: float) -> None:
        """Of no interest here."""

    def ended(self, report: Report) -> None:
        """Count a request."""
        if report.fault in UNSERVED:
            return
        if report.fault in OURS:
            self._catalog.record(self._version, ok=False)
            return
        shown = report.first if report.first is not None else report.ended if report.fault == "timed_out" else None
        self._catalog.record(self._version, ok=True, latency_s=None if shown is None else shown - report.arrived)
