"""What this process can use of the machine: cores, memory, instruction sets, GPUs, disk."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from openautoglm.core import limits

ISA_NAMES = (
    "sse4_2", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16",
    "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
)
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: its name and its memory."""

    name: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Machine:
    """What this process may use.

    Attributes:
        cores: CPU cores, after affinity and control group quota; at least 1.
        memory_bytes: memory of the machine, or the control group's limit where that is smaller.
        available_bytes: what can still be taken of it without swapping.
        limit_bytes: the control group's limit, None where there is none.
        isa: instruction sets that matter for kernels, in the order of `ISA_NAMES`.
        gpus: NVIDIA GPUs, as the driver's own tool lists them.
        python: version of the interpreter; platform: operating system and processor.
    """

    cores: int
    memory_bytes: int
    available_bytes: int
    limit_bytes: int | None
    isa: tuple[str, ...]
    gpus: tuple[Gpu, ...]
    python: str
    platform: str

    def disk_free_bytes(self, path: str | Path = ".") -> int:
        """Return the free bytes of the disk that holds `path`, which need not exist yet."""
        folder = Path(path).absolute()
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free


def probe(root: Path = Path("/")) -> Machine:
    """Look at the machine; nothing is measured, so this takes milliseconds (a GPU driver may take a second).

    Args:
        root: where ``proc`` and ``sys`` are mounted; tests put a folder of their own here.
    """
    total, available = _memory(root / "proc/meminfo")
    limit = limits.memory_limit_bytes(root)
    used = limits.memory_used_bytes(root)
    if limit is not None and used is not None:
        available = min(available, max(limit - used, 0))
    return Machine(
        cores=usable_cores(root),
        memory_bytes=total if limit is None else min(total, limit),
        available_bytes=available,
        limit_bytes=limit,
        isa=_isa(root / "proc/cpuinfo"),
        gpus=_gpus(),
        python=".".join(map(str, sys.version_info[:3])),
        platform=f"{os.uname().sysname} {os.uname().machine}",
    )


def usable_cores(root: Path = Path("/")) -> int:
    """Processors that this process can keep busy, after affinity and control group quota; at least 1."""
    quota = limits.cpu_limit(root)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if quota is None else max(1, min(cores, int(quota)))


def _memory(meminfo: Path) -> tuple[int, int]:
    """Bytes in all and available, as the kernel counts them; of systems without this file as psutil knows them."""
    if not meminfo.is_file():
        import psutil

        found = psutil.virtual_memory()
        return int(found.total), int(found.available)
    facts = {}
    for line in meminfo.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        facts[key] = int(value.split()[0]) << 10
    return facts["MemTotal"], facts["MemAvailable"]


def _isa(cpuinfo: Path) -> tuple[str, ...]:
    """The flags of the first processor (x86: ``flags``, ARM: ``Features``)."""
    if not cpuinfo.is_file():
        return ()
    for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags = set(value.split())
            return tuple(name for name in ISA_NAMES if name in flags)
    return ()


def _gpus() -> tuple[Gpu, ...]:
    """Ask ``nvidia-smi``; a machine without it, or whose driver does not answer, has no GPU for us."""
    query = ("--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
    answer = output("nvidia-smi", *query, timeout_s=10)
    found = []
    for line in (answer or "").splitlines():
        name, _, mebibytes = line.rpartition(",")
        if mebibytes.strip().isdigit():
            found.append(Gpu(name.strip(), int(mebibytes) << 20))
    return tuple(found)


def output(program: str, *arguments: str, timeout_s: float = 3.0) -> str | None:
    """Return what a program of the system prints; None where it is absent, fails or hangs."""
    path = shutil.which(program)
    if path is None:
        return None
    import subprocess  # takes milliseconds to import, which a start without such a program need not spend

    try:
        done = subprocess.run(  # nosec B603  # a program of the machine, with our arguments, no shell
            [path, *arguments], capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
