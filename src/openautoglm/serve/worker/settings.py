"""Options of an engine in a process of its own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from openautoglm.core.log import Format
from openautoglm.core.settings import Settings
from openautoglm.engine.grammar_check import GrammarLimits
from openautoglm.engine.open import ProgramSettings
from openautoglm.engine.settings import EngineSettings


class WorkerSettings(Settings):
    """How an engine runs, and how it is watched.

    Attributes:
        program, engine, grammars: of what runs in the process.
        start_s: loading may take so long.
        stall_s: with work to do and no step for so long, the engine hangs: it is killed and started again. A step of
            `max_batch_tokens` rows of a large model may take minutes on a small machine; the engine times its steps and
            is given at least eight times what one may well take.
        backoff_s, most_backoff_s: wait before it is started again; twice as long after each failure, to that bound.
        settled_s: after so long without a failure the wait is short again.
        memory_bytes: of address space that the process may take; None: no bound.
        buffer_tokens: that may wait for a reader who is slow, for one request, an alternative counted as four tokens; a
            request that has more of them is cancelled.
        log_format, log_level: of the process; it writes to standard error.
    """

    program: ProgramSettings = ProgramSettings()
    engine: EngineSettings = EngineSettings()
    grammars: GrammarLimits = GrammarLimits()
    start_s: float = Field(default=600, gt=0)
    stall_s: float = Field(default=60, gt=0)
    backoff_s: float = Field(default=0.5, gt=0)
    most_backoff_s: float = Field(default=30, gt=0)
    settled_s: float = Field(default=60, gt=0)
    memory_bytes: int | None = Field(default=None, gt=0)
    buffer_tokens: int = Field(default=65_536, ge=1)
    log_format: Format = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
