"""What one server is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from openautoglm.serve.guard.guard import Guard
from openautoglm.serve.hosting.hosted import Hosted
from openautoglm.serve.hosting.responses import CachedResponses
from openautoglm.serve.metrics.prometheus import Metrics
from openautoglm.serve.rest.settings import RestSettings
from openautoglm.serve.service.models import Models, Repository
from openautoglm.serve.wire.limits import Limits


@dataclass(frozen=True)
class Serving:
    """What one server is made of.

    Attributes:
        models: what it serves.
        metrics: its figures; told by the services, read under ``/metrics``.
        guard: tells who calls.
        limits: on what is asked.
        hosted: the models of a registry, which administrators change; None where one bundle is served.
        responses: answers that were given before; None where none are kept.
    """

    models: Models
    metrics: Metrics
    guard: Guard = field(default_factory=lambda: Guard(None))
    settings: RestSettings = field(default_factory=RestSettings)
    limits: Limits = field(default_factory=Limits)
    hosted: Hosted | None = None
    responses: CachedResponses | None = None

    @property
    def repository(self) -> Repository | None:
        """Loads and unloads models; None where there is one for good."""
        return self.hosted
