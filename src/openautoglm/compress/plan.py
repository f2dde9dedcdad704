"""How much memory a quantisation takes, told before it starts, and where the calibration's states are kept."""

from __future__ import annotations

from dataclasses import dataclass

from openautoglm.compress.apply import Base
from openautoglm.compress.calibrate import BATCH_TOKENS, Calibration
from openautoglm.compress.grid import CHUNK_VALUES
from openautoglm.compress.settings import RtnSettings
from openautoglm.compress.source import slots
from openautoglm.core.errors import ResourceError
from openautoglm.core.log import get
from openautoglm.models.spec import GlmSpec
from openautoglm.runtime.memory import free_bytes, resident_bytes

_log = get(__name__)
_PIECES = 8
"""Copies of a piece of `CHUNK_VALUES` weights that are in use at a time: values, tries, errors, codes."""
_SQUARES = {"gptq": 5, "awq": 4}
"""Matrices [I, I] in use at a time: the Hessian, its copy, its factors."""
_OVERHEAD_BYTES = 192 << 20
"""What torch's libraries take once they compute, and what the allocator does not give back."""
_SHARE_OF_FREE = 0.8


@dataclass(frozen=True)
class MemoryPlan:
    """What is needed at the peak.

    Attributes:
        work_bytes: beside what the process holds already, without the states.
        state_bytes: the calibration's states.
        on_disk: whether the states are in files.
        base_bytes: what the process held when the plan was made.
    """

    work_bytes: int
    state_bytes: int
    on_disk: bool
    base_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it in memory."""
        return self.base_bytes + self.work_bytes + (0 if self.on_disk else self.state_bytes)


def plan(spec: GlmSpec, base: Base, calibration: Calibration | None, limit: int | None, *, copies: int = 0,
         base_bytes: int | None = None) -> MemoryPlan:
    """Plan a quantisation.

    Args:
        limit: bytes that the process may hold; None: most of what is free now.
        copies: of the states, beside the two that every walk has.
        base_bytes: what the process holds; None: what it holds now.

    Raises:
        ResourceError: it does not fit, even with the states on disk; the least limit is named.
    """
    held = resident_bytes() if base_bytes is None else base_bytes
    limit = held + int(free_bytes() * _SHARE_OF_FREE) if limit is None else limit
    work = _OVERHEAD_BYTES + _PIECES * CHUNK_VALUES * 4 + _tables(spec, base)
    states = 0
    for slot in slots(spec).values():
        kept = slots(spec)["gate_up"].weights * 4 if slot.name == "down" else 0
        here = slot.weights * 13 + kept + slots(spec)["gate_up"].weights
        if calibration is not None and not isinstance(base, RtnSettings):
            here += _SQUARES[base.method] * slot.columns**2 * 4
        work = max(work, _OVERHEAD_BYTES + _PIECES * CHUNK_VALUES * 4 + here)
    if calibration is not None:
        tokens = max(BATCH_TOKENS, calibration.longest)
        work += tokens * 4 * max(7 * spec.ffn_size, 5 * (spec.query_size + 2 * spec.kv_size))
        states = calibration.tokens * 4 * (spec.hidden_size + spec.query_size + copies * spec.hidden_size)
        if copies:
            work += sum(slot.weights for slot in slots(spec).values()) * 4
    found = MemoryPlan(work, states, held + work + states > limit, held)
    if found.total_bytes > limit:
        raise ResourceError(f"quantising takes {found.total_bytes} bytes with the calibration on disk ({held} of them "
                            f"the process holds already), the limit is {limit}", where="memory_limit",
                            remedy=f"raise memory_limit to {found.total_bytes}, or use the method rtn")
    if found.on_disk:
        _log.info("the calibration's states (%d bytes) are kept on disk: the limit is %d bytes", states, limit)
    return found


def _tables(spec: GlmSpec, base: Base) -> int:
    """Bytes of the embedding or of the head on its way to the file: its codes twice and scales, or plain weights."""
    bits = max(base.embedding_bits, base.head_bits)
    return spec.vocab_size * spec.hidden_size * {32: 10, 16: 4}.get(bits, 5) // 2
