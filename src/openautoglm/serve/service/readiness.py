"""Whether a model can serve: a token was generated lately, or one can be generated now."""

from __future__ import annotations

import asyncio
import time

from openautoglm.serve.backend import Backend
from openautoglm.serve.faults import Fault

_LATELY_S = 10.0
_PROBE_S = 5.0


class Readiness:
    """Looks after one backend. Many may ask at once; one probe answers them all.

    Args:
        lately_s: a token within so many seconds means that the engine works.
        probe_s: seconds that the one token of a probe may take.
    """

    def __init__(self, backend: Backend, lately_s: float = _LATELY_S, probe_s: float = _PROBE_S) -> None:
        self._backend, self._lately_s, self._probe_s = backend, lately_s, probe_s
        self._tokens = -1
        self._worked_at = float("-inf")
        self._probing = asyncio.Lock()

    async def fault(self) -> str | None:
        """Say why the model cannot serve; None where it can."""
        if not self._backend.ready:
            return "the engine is starting, restarting or ending"
        if self._worked_lately():
            return None
        async with self._probing:
            if self._worked_lately():
                return None
            try:
                await self._backend.probe(self._probe_s)
            except Fault as fault:
                return f"no token within {self._probe_s:g} seconds: {fault.public}"
            self._worked_at = time.monotonic()
            return None

    def _worked_lately(self) -> bool:
        now = time.monotonic()
        tokens = self._backend.stats.generated_tokens
        if self._tokens not in (-1, tokens):
            self._worked_at = now
        self._tokens = tokens
        return now - self._worked_at < self._lately_s
