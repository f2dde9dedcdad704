"""What a process holds already counts against its memory limit, on every target that takes from the same memory."""

from __future__ import annotations

import mmap
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runtime_models import tiny_spec

from openautoglm.core.errors import ResourceError
from openautoglm.engine.open import ProgramSettings, cache_pages
from openautoglm.runtime import memory
from openautoglm.runtime.cache import CacheShape
from openautoglm.runtime.load import load_program
from openautoglm.runtime.program import Plan

MIB = 1 << 20


def test_what_is_resident_is_what_the_kernel_says() -> None:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    told = int(status.partition("VmRSS:")[2].split()[0]) << 10
    assert memory.resident_bytes() == pytest.approx(told, rel=0.05)
    with mmap.mmap(-1, 64 * MIB) as held:  # pages of its own: memory that was freed may be resident already
        told = memory.resident_bytes()
        held.write(b"x" * (64 * MIB))
        assert memory.resident_bytes() > told + 60 * MIB


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory, and has a call for it")
def test_freed_memory_goes_back_to_the_system() -> None:
    held = [bytes(100_000) for _ in range(640)]  # pieces below the size from which each is mapped alone
    last, held = held[-1], []
    before = memory.resident_bytes()
    assert memory.give_back()
    assert memory.resident_bytes() < before - 30 * MIB
    assert not any(last[:8])


def test_without_proc_the_peak_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    now = memory.resident_bytes()
    monkeypatch.setattr(Path, "is_file", lambda path: False)
    assert now * 0.95 <= memory.resident_bytes() < 64 * now


def test_the_torch_target_counts_the_process_too(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "resident_bytes", lambda: 100 * MIB)
    options = {"pages": 8, "page_size": 16, "max_rows": 16, "max_wanted": 4}
    with pytest.raises(ResourceError, match="the process holds") as caught:
        load_program(written.folder, memory_limit=90 * MIB, **options)
    assert "the process alone holds" in str(caught.value.remedy)
    with pytest.raises(ResourceError, match="the limit is"):
        load_program(written.folder, memory_limit=100 * MIB + memory.OVERHEAD_BYTES + 1000, **options)
    assert load_program(written.folder, memory_limit=150 * MIB, **options).plan.cache.pages == 8


def test_a_gpu_has_memory_of_its_own() -> None:
    plan = Plan(tiny_spec(), "torch:cuda", "fp32", CacheShape(2, 2, 16, 16, 4, "bf16"), 8, 8)
    assert memory.base_bytes(plan) == 0
    assert memory.base_bytes(replace(plan, target="native")) > memory.OVERHEAD_BYTES


def test_the_cache_takes_its_share_of_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openautoglm.engine.open.resident_bytes", lambda: 60 * MIB)
    spec = tiny_spec(max_positions=1024)
    page = CacheShape(spec.layers, spec.kv_heads, spec.head_dim, 16, 1, "bf16").page_bytes
    assert cache_pages(spec, ProgramSettings(memory_limit=100 * MIB), "bf16") == 10 * MIB // page
    assert cache_pages(spec, ProgramSettings(memory_limit=50 * MIB), "bf16") == 1


@pytest.mark.parametrize(("size", "takes"), [(0, 0), (1000, 1000), (3 * MIB, 3 * MIB),
                                             (16 * MIB - 1, 16 * MIB - 1), (16 * MIB, 16 * MIB),
                                             (16 * MIB + 1, 18 * MIB)])
def test_blocks_are_rounded_to_large_pages(size: int, takes: int) -> None:
    assert memory.block_bytes(size) == takes


@pytest.mark.parametrize("room", [0, 1, MIB, 16 * MIB - 1, 16 * MIB, 17 * MIB, 18 * MIB])
def test_the_largest_block_that_fits_is_the_largest(room: int) -> None:
    best = memory.block_within(room)
    assert memory.block_bytes(best) <= room
    assert memory.block_bytes(best + 1) > room or best + 1 > room
