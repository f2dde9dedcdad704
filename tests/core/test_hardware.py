"""The hardware probe, on this machine and on machines of paper."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from openautoglm.core import hardware
from openautoglm.core.hardware import Gpu, output, probe


def paper(root: Path, cpuinfo: str, **more: str) -> Path:
    meminfo = "MemTotal: 8 kB\nMemAvailable: 4 kB\nHugePages_Free: 0\n"
    for name, text in {"proc/cpuinfo": cpuinfo, "proc/meminfo": meminfo, **more}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_this_machine_has_what_every_machine_has() -> None:
    machine = probe()
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert 0 < machine.available_bytes <= machine.memory_bytes
    assert machine.limit_bytes is None or machine.memory_bytes <= machine.limit_bytes
    assert machine.python.startswith("3.")
    assert set(machine.isa) <= set(hardware.ISA_NAMES)


def test_the_disk_of_a_folder_that_is_still_to_be_made(tmp_path: Path) -> None:
    assert probe().disk_free_bytes(tmp_path / "not" / "there") > 0


@pytest.mark.parametrize(("cpuinfo", "isa"), [
    ("processor: 0\nflags\t\t: fpu avx512_vnni avx2 fma\nflags: sse4_2\n", ("fma", "avx2", "avx512_vnni")),
    ("Features\t: fp asimd i8mm\n", ("asimd", "i8mm")),
    ("nothing of use\n", ()),
])
def test_instruction_sets_have_a_fixed_order(tmp_path: Path, cpuinfo: str, isa: tuple[str, ...]) -> None:
    assert probe(paper(tmp_path, cpuinfo)).isa == isa


def test_a_control_group_makes_the_machine_smaller(tmp_path: Path) -> None:
    root = paper(tmp_path, "", **{
        "proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/memory.max": "5000\n",
        "sys/fs/cgroup/box/memory.current": "3000\n", "sys/fs/cgroup/box/cpu.max": "50000 100000\n"})
    machine = probe(root)
    assert (machine.memory_bytes, machine.limit_bytes, machine.available_bytes) == (5000, 5000, 2000)
    assert machine.cores == 1


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_gpus_come_from_the_drivers_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program(tmp_path, "nvidia-smi", "echo 'A card, big, 81559'\necho 'noise'")
    assert probe().gpus == (Gpu("A card, big", 81559 << 20),)
    program(tmp_path, "nvidia-smi", "echo 'no driver' >&2; exit 9")
    assert probe().gpus == ()


def test_a_program_that_is_absent_fails_or_hangs_says_nothing(tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program(tmp_path, "slow", "exec sleep 5")
    program(tmp_path, "fails", "echo half; exit 3")
    program(tmp_path, "speaks", "echo $1")
    assert output("slow", timeout_s=0.1) is None
    assert output("fails") is None
    assert output("not-on-this-machine") is None
    assert output("speaks", "word") == "word\n"
