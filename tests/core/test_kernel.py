"""Facts of the kernel, from machines of paper."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from paper_machine import limits, meminfo, paper, stat

from openautoglm.core import hardware
from openautoglm.core.kernel import UNLIMITED, Kernel, Limit, Node, look, numbers

GIB = 1 << 30


def test_every_fact_is_read_from_its_file(tmp_path: Path) -> None:
    found = look(paper(tmp_path, **{
        "proc/meminfo": meminfo(swap_gib=4, swap_free_gib=3, huge=512), "proc/self/stat": stat(7),
        "proc/self/limits": limits("1024", "unlimited", nice=25),
        "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.high": "4096\n",
        "sys/fs/cgroup/a/b/memory.high": "max\n",
        "sys/fs/cgroup/a/memory.swap.max": "0\n", "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/a/b/cpu.stat": "usage_usec 5\nnr_periods 9\nnr_throttled 3\n"}))
    assert (found.memory_bytes, found.swap_bytes, found.swap_free_bytes) == (16 * GIB, 4 * GIB, 3 * GIB)
    assert (found.commit_limit_bytes, found.committed_bytes, found.reserved_bytes) == (8 * GIB, 5 * GIB, GIB)
    assert (found.swappiness, found.overcommit, found.huge_pages) == (60, 0, "madvise")
    assert (found.governors, found.driver) == (("powersave",), "intel_pstate")
    assert found.allowed_cpus == found.online_cpus == (0, 1, 2, 3)
    assert (found.quota, found.throttled) == (1.5, 3)
    assert (found.group_high_bytes, found.group_swap_bytes) == (4096, 0)
    assert found.nodes == (Node(0, (0, 1, 2, 3), 6 * GIB),)
    assert (found.nice, found.may_raise, found.load, found.pressure) == (7, True, 0.25, 0.015)
    assert found.open_files == Limit(1024, UNLIMITED)
    assert found.locked == Limit(8 << 20, UNLIMITED)


@pytest.mark.parametrize(("capabilities", "bound", "may"), [
    ("0000000000000000", 0, False), ("0000000000800000", 0, True), ("0000000000000000", 21, True), ("what", 40, None),
], ids=["none", "CAP_SYS_NICE", "RLIMIT_NICE", "unreadable"])
def test_who_may_raise_a_priority(tmp_path: Path, capabilities: str, bound: int, may: bool | None) -> None:
    root = paper(tmp_path, **{"proc/self/status": f"CapEff:\t{capabilities}\n", "proc/self/limits": limits(nice=bound)})
    assert look(root).may_raise is may


def test_without_any_file_nothing_is_known(tmp_path: Path) -> None:
    assert look(tmp_path) == Kernel()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"no numbers here: at (all\n" * 3],
                         ids=["empty", "bytes", "text"])
def test_files_of_nonsense_say_nothing(tmp_path: Path, content: bytes) -> None:
    root = paper(tmp_path)
    for path in root.rglob("*"):
        if path.is_file():
            path.write_bytes(content)
    found = look(root)
    assert (found.memory_bytes, found.swappiness, found.huge_pages, found.nice, found.load) == (None,) * 5
    assert (found.allowed_cpus, found.open_files, found.pressure) == ((), None, None)


@pytest.mark.parametrize(("text", "found"), [("0-2,5\n", (0, 1, 2, 5)), ("7", (7,)), ("", ()), ("0-x", ()),
                                             ("a,1", ())], ids=["ranges", "one", "none", "half", "words"])
def test_lists_of_processors(text: str, found: tuple[int, ...]) -> None:
    assert numbers(text) == found


def test_without_meminfo_the_memory_is_still_known(tmp_path: Path) -> None:
    machine = hardware.probe(tmp_path)
    assert 0 < machine.available_bytes <= machine.memory_bytes


def test_this_machine_can_be_looked_at() -> None:
    found = look()
    assert found.nice is None or -20 <= found.nice <= 19
    assert set(found.allowed_cpus) <= set(range(1 << 16))
