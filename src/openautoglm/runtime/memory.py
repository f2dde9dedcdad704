"""How much memory is free, and how a program is made smaller to fit into a limit."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from dataclasses import replace
from pathlib import Path

from openautoglm.core.errors import ResourceError
from openautoglm.core.limits import memory_limit_bytes, memory_used_bytes
from openautoglm.core.log import get
from openautoglm.runtime.program import Facts, Plan

_log = get(__name__)
_LEAST_TOKENS = 512
OVERHEAD_BYTES = 8 << 20
"""What comes with a program and is not counted singly: stacks of threads, the allocator, lists of calls, rounding."""
_HUGE_PAGE, _HUGE_FROM = 2 << 20, 16 << 20


def free_bytes() -> int:
    """Bytes that this process may still take, of the machine and of its control group."""
    free = _available()
    limit, used = memory_limit_bytes(), memory_used_bytes()
    return free if limit is None or used is None else min(free, max(limit - used, 0))


def _available() -> int:
    """Free bytes of the machine, with what the kernel can take back where it says so."""
    facts = Path("/proc/meminfo")
    for line in facts.read_text(encoding="utf-8").splitlines() if facts.is_file() else ():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def base_bytes(plan: Plan) -> int:
    """What the process takes beside the program of a plan, of the memory that the program will take from."""
    return resident_bytes() + OVERHEAD_BYTES if plan.device == "cpu" else 0


def resident_bytes() -> int:
    """What this process has in memory now, the parts of libraries that it has used included.

    Where the system does not say (it has no /proc), the most that it had so far.
    """
    facts = Path("/proc/self/statm")
    if facts.is_file():
        return int(facts.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def give_back() -> bool:
    """Give memory that was freed back to the system; return whether there is a way.

    glibc keeps freed pieces that lie between used ones: a hundred megabytes and more after weights were quantised.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None  # not in musl
    if trim is not None:
        trim(0)
    return trim is not None


def block_bytes(size: int) -> int:
    """What a block of the extension takes: from 16 MiB on, whole large pages (2 MiB)."""
    return size if size < _HUGE_FROM else -(-size // _HUGE_PAGE) * _HUGE_PAGE


def block_within(room: int) -> int:
    """The largest size of which `block_bytes` says that it fits into `room` bytes."""
    return room if room < _HUGE_FROM else room // _HUGE_PAGE * _HUGE_PAGE


def fewer_pages(facts: Facts, plan: Plan, limit: int) -> Plan | None:
    """The plan with as many pages as fit into `limit` bytes, if these hold a sequence of some length; else None."""
    pages = (limit - facts.base_bytes - facts.weight_bytes - facts.activation_bytes) // plan.cache.page_bytes
    if pages >= plan.cache.pages:
        return plan
    if pages < least_pages(plan):
        return None
    _log.warning("the cache has %d pages in place of %d: %d bytes are the limit", pages, plan.cache.pages, limit)
    return replace(plan, cache=replace(plan.cache, pages=pages))


def least_pages(plan: Plan) -> int:
    """The fewest pages that are worth having: a sequence of 512 tokens, or of the model's length."""
    tokens = min(_LEAST_TOKENS, plan.spec.max_positions)
    return min(plan.cache.pages, -(-tokens // plan.cache.page_size))


def refuse(facts: Facts, plan: Plan, limit: int, more: str = "") -> ResourceError:
    """What to raise for a program that takes more than `limit` bytes: it says what would fit."""
    room = limit - facts.base_bytes - facts.weight_bytes - facts.activation_bytes
    if facts.base_bytes >= limit:
        remedy = f"raise memory_limit: the process alone holds {facts.base_bytes} before it loads a model"
    elif room >= plan.cache.page_bytes:
        remedy = f"at most {room // plan.cache.page_bytes} pages fit in place of {plan.cache.pages}"
        if plan.cache.format != "int8":
            remedy += ", or keep the cache in int8"
    elif facts.base_bytes + facts.weight_bytes + plan.cache.page_bytes < limit:
        remedy = f"lower max_rows ({plan.max_rows}) or max_wanted ({plan.max_wanted}), and pages ({plan.cache.pages})"
    elif plan.quantise is None and plan.dtype == "fp32":
        remedy = "load with dtype bf16, compress the model, or take a smaller one"
    else:
        remedy = "compress the model to int8 or int4, or take a smaller one"
    parts = f"weights {facts.weight_bytes}, cache {facts.cache_bytes}, activations {facts.activation_bytes}"
    return ResourceError(f"the program takes {facts.total_bytes} bytes ({parts}), the process holds {facts.base_bytes} "
                         f"without it, the limit is {limit}", where=plan.target, remedy=f"{remedy}{more}")
