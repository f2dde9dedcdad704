"""The registry as servers use it: a picture in memory, brought up to date behind the requests, and canaries judged.

No request waits for the database here, and none fails because it is gone: the last picture answers.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from pydantic import Field

from openautoglm.core import log
from openautoglm.core.settings import Settings
from openautoglm.serve.faults import Fault, Unavailable
from openautoglm.serve.registry.canary import Canary, CanarySettings, Verdict
from openautoglm.serve.registry.choose import Snapshot
from openautoglm.serve.registry.names import Reference, parse
from openautoglm.serve.registry.outcomes import MINUTE_S, bucket_of
from openautoglm.serve.registry.records import Model, Share, Version
from openautoglm.serve.registry.registry import Registry
from openautoglm.serve.registry.wishes import Wish

_BY = "canary"
_TIDY_S = 600.0


class CatalogSettings(Settings):
    """How often the catalog looks at the registry, and when versions on trial are rolled back.

    Attributes:
        refresh_s: pause between two looks, seconds; a change by another process is seen after it.
        unsent: classes of outcomes kept while the database is gone; more are dropped, oldest first.
    """

    refresh_s: float = Field(default=2.0, gt=0, le=600)
    unsent: int = Field(default=10_000, ge=1)
    canary: CanarySettings = CanarySettings()


class Catalog:
    """Chooses versions from memory; `start` begins, and `close` ends, the task which keeps it up to date."""

    def __init__(self, registry: Registry, settings: CatalogSettings | None = None, *,
                 now: Callable[[], float] = time.time, dice: random.Random | None = None) -> None:
        self.settings = settings or CatalogSettings()
        self.registry = registry
        self.snapshot = Snapshot()
        self.wishes: tuple[Wish, ...] = ()
        self.lost = False  # whether the database did not answer at the last look
        self._canary = Canary(self.settings.canary)
        self._now = now
        self._dice = dice or random.Random()  # nosec B311  # shares of traffic, no secret
        self._unsent: Counter[tuple[int, int, int]] = Counter()
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._tidied_s = now()

    async def start(self) -> None:
        """Read the registry, then go on in the background; raises a Fault where it cannot be read at all."""
        await self.refresh()
        self._stop.clear()
        self._task = asyncio.create_task(self._keep(), name="catalog")

    async def close(self) -> None:
        """End the task and send what was counted, as far as the database answers."""
        if self._task is not None:
            self._stop.set()  # not cancelled: a count that is being stored would be counted twice
            await self._task
            self._task = None
            with suppress(Fault):
                await self.flush()

    def choose(self, reference: str | Reference, key: str | None = None) -> Version:
        """Return the version that is to answer a request for `reference`.

        Args:
            key: requests of the same key (a conversation, a user) go to the same version.

        Raises:
            BadRequest, NotFound: not a reference, or nothing of that name. Unavailable: the registry was never read.
        """
        wanted = parse(reference) if isinstance(reference, str) else reference
        if self.snapshot.revision < 0:
            raise Unavailable("the registry has not been read yet")
        return self.snapshot.choose(wanted, key, self._dice)

    def record(self, version: Version, *, ok: bool, latency_s: float | None = None) -> None:
        """Count a finished request.

        Args:
            ok: False where it failed through our fault; faults of clients are ok, and cancelled ones not recorded.
            latency_s: the same measure for all versions, the time to first token is best.
        """
        self._unsent[version.id, int(self._now() // MINUTE_S), bucket_of(latency_s, ok=ok)] += 1

    async def refresh(self) -> bool:
        """Look whether the registry has changed, and read it then; return whether it has."""
        revision = await self.registry.run(self.registry.revision)
        if revision == self.snapshot.revision:
            return False
        snapshot = await self.registry.run(self.registry.snapshot)
        self.wishes = tuple(await self.registry.run(self.registry.wishes.list))
        self.snapshot = snapshot
        return True

    async def flush(self) -> None:
        """Send what was counted since the last time; what could not be sent is kept for the next."""
        sending, self._unsent = self._unsent, Counter()
        try:
            await self.registry.run(self.registry.outcomes.add, dict(sending))
        except BaseException:
            self._unsent.update(sending)
            for old in sorted(self._unsent, key=lambda key: key[1])[: max(0, len(self._unsent) - self.settings.unsent)]:
                del self._unsent[old]
            raise

    async def judge(self) -> dict[str, Verdict]:
        """Judge every version on trial; roll back what must be. Return the verdicts by ``name/number``."""
        verdicts: dict[str, Verdict] = {}
        for model in self.snapshot.models.values():
            if model.route is not None and model.route.candidates:
                verdicts |= await self._judge(model)
        return verdicts

    async def look(self) -> None:
        """One round: read what has changed, send counts, judge, tidy up. Raises a Fault where the database is lost."""
        await self.refresh()
        await self.flush()
        if any(verdict.action == "roll back" for verdict in (await self.judge()).values()):
            await self.refresh()
        if self._now() - self._tidied_s > _TIDY_S:
            self._tidied_s = self._now()
            await self.registry.run(self.registry.tidy)

    async def _judge(self, model: Model) -> dict[str, Verdict]:
        route = model.route
        assert route is not None
        assert route.baseline is not None
        since_s = max(route.since_s, self._now() - self._canary.settings.window_s)
        ids = {share.number: model.versions[share.number].id for share in route.live}
        totals = await self.registry.run(self.registry.outcomes.totals, ids.values(), since_s=since_s)
        verdicts = {share.number: self._canary.judge(totals[ids[share.number]], totals[ids[route.baseline.number]])
                    for share in route.candidates}
        for share in route.candidates:
            verdict = verdicts[share.number]
            if verdict.action == "roll back" and self._canary.settings.enabled:
                await self._roll_back(model, share, verdict.reason, route.revision)
                break  # the route has a new revision now; the others are judged in the next round
        return {f"{model.name}/{number}": verdict for number, verdict in verdicts.items()}

    async def _roll_back(self, model: Model, share: Share, reason: str, revision: int) -> None:
        done = await self.registry.run(self.registry.routes.roll_back, model.name, share.number, revision=revision,
                                       reason=reason, by=_BY)
        if done:
            log.get(__name__).warning("a version on trial was rolled back", extra={
                "version": f"{model.name}/{share.number}", "reason": reason})

    async def _keep(self) -> None:
        while not self._stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), self.settings.refresh_s)
                return
            try:
                await self.look()
            except Fault as fault:
                if not self.lost:
                    log.get(__name__).warning("the registry does not answer; the last picture of it goes on serving",
                                              extra={"cause": fault.message})
                self.lost = True
            except Exception:
                log.get(__name__).exception("a look at the registry failed")
            else:
                if self.lost:
                    log.get(__name__).info("the registry answers again")
                self.lost = False
