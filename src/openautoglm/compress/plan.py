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
_PIECES = 5
"""Copies of a piece of at most `CHUNK_VALUES` weights that are in use at a time: values, tries, errors, codes."""
_SQUARES = {"gptq": 5, "awq": 4}
"""Matrices [I, I] in use at a time: the Hessian, its copy, its factors."""
OVERHEAD_BYTES = 64 << 20
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


@dataclass(frozen=True)
class Shown:
    """How much a calibration shows: tokens of all sequences, and of the longest."""

    tokens: int
    longest: int


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
    shown = None if calibration is None else Shown(calibration.tokens, calibration.longest)
    needed = moments(spec, base, shown, copies=copies)
    states = 0 if shown is None else state_bytes(spec, shown, copies)
    work = max(sum(parts.values()) for parts in needed.values())
    found = MemoryPlan(work, states, held + work + states > limit, held)
    if found.total_bytes > limit:
        raise ResourceError(f"quantising takes {found.total_bytes} bytes with the calibration on disk ({held} of them "
                            f"the process holds already), the limit is {limit}", where="memory_limit",
                            remedy=f"raise memory_limit to {found.total_bytes}, or use the method rtn")
    if found.on_disk:
        _log.info("the calibration's states (%d bytes) are kept on disk: the limit is %d bytes", states, limit)
    return found


def state_bytes(spec: GlmSpec, shown: Shown, copies: int = 0) -> int:
    """Bytes of the calibration's states."""
    return shown.tokens * 4 * (spec.hidden_size + spec.query_size + copies * spec.hidden_size)


def moments(spec: GlmSpec, base: Base, shown: Shown | None, *, copies: int = 0) -> dict[str, dict[str, int]]:
    """Bytes of each part at the moments that may be the worst, without what the process holds and without states.

    Returns:
        By moment (each place of a layer, ``tables``), by part.
    """
    places, squares = slots(spec), 0 if shown is None or isinstance(base, RtnSettings) else _SQUARES[base.method]
    found: dict[str, dict[str, int]] = {}
    for slot in places.values():
        kept = places["gate_up"].weights * (5 if slot.name == "down" else 1)
        found[f"a layer's {slot.name}"] = {
            "a layer's matrices": slot.weights * 13 + kept, "pieces at work": _pieces(slot.weights),
            "statistics of inputs": squares * slot.columns**2 * 4}
    if shown is not None:
        tokens = max(BATCH_TOKENS, shown.longest)
        for parts in found.values():
            parts["tokens on their way"] = tokens * 4 * max(7 * spec.ffn_size, 5 * (spec.query_size + 2 * spec.kv_size))
            parts["one layer in all forms"] = sum(slot.weights for slot in places.values()) * 4 if copies else 0
    found["tables"] = {"embedding and head": _tables(spec, base),
                       "pieces at work": _pieces(spec.vocab_size * spec.hidden_size),
                       "statistics of inputs": squares * spec.hidden_size**2 * 4}
    return {name: {"libraries at work": OVERHEAD_BYTES, **parts} for name, parts in found.items()}


def _pieces(weights: int) -> int:
    return _PIECES * 4 * min(CHUNK_VALUES, weights)


def _tables(spec: GlmSpec, base: Base) -> int:
    """Bytes of the embedding or of the head on its way to the file: its codes twice and scales, or plain weights."""
    bits = max(base.embedding_bits, base.head_bits)
    return spec.vocab_size * spec.hidden_size * {32: 10, 16: 4}.get(bits, 5) // 2
