"""The findings of ``autoglm doctor``: what the verbs need of the machine, and what is there."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from openautoglm.core import installation
from openautoglm.core.hardware import GIB, Machine, output
from openautoglm.core.needs import NEEDS, Finding, Status


def examine(machine: Machine, *, folder: Path = Path(), port: int = 8080,
            verb: str | None = None) -> list[Finding]:
    """Look at everything; the modules that `verb` needs are really imported, the others only looked for.

    Args:
        machine: what `openautoglm.core.hardware.probe` found.
        folder: where runs are to be written.
        port: the port on loopback that serving will ask for.
        verb: the verb to be sure about, a key of `NEEDS`.
    """
    return [
        installation.python(),
        Finding("processor", "ok", f"{machine.platform}, {machine.cores} cores"),
        _instructions(machine),
        _room("memory", machine.available_bytes, {name: need.memory_gib for name, need in NEEDS.items()},
              "close other programs, raise the container's limit, or choose a smaller model"),
        _limit(machine),
        _room("disk", machine.disk_free_bytes(folder), {name: need.disk_gib for name, need in NEEDS.items()},
              "free some space or choose another folder"),
        *installation.modules(NEEDS[verb].modules if verb else ()),
        installation.versions(),
        _gpu(machine),
        _compiler(),
        _clock(),
        _port(port),
    ]


def blocking(findings: list[Finding], verb: str) -> list[Finding]:
    """Return the findings because of which `verb` cannot run."""
    return [finding for finding in findings if verb in finding.blocks]


def _instructions(machine: Machine) -> Finding:
    found = " ".join(machine.isa) or "none known"
    if any(name in machine.isa for name in ("avx2", "asimd")):
        return Finding("instruction set", "ok", found)
    return Finding("instruction set", "warning", found, "it works, slowly; use a processor with AVX2 or NEON")


def _room(name: str, free_bytes: int, needs: dict[str, float], remedy: str) -> Finding:
    """Memory or disk: what is free against each verb's need; below twice the largest need is a warning."""
    free_gib = free_bytes / GIB
    blocks = tuple(verb for verb, gib in needs.items() if gib > free_gib)
    most = max(needs.values())
    status: Status = "failure" if blocks else "warning" if free_gib < 2 * most else "ok"
    found = f"{free_gib:.1f} GiB free" + ("" if status == "ok" else f", up to {most:g} GiB needed")
    return Finding(name, status, found, "" if status == "ok" else remedy, blocks)


def _limit(machine: Machine) -> Finding:
    if machine.limit_bytes is None:
        return Finding("control group", "ok", "no memory limit")
    return Finding("control group", "ok", f"memory limit {machine.limit_bytes / GIB:.1f} GiB")


def _gpu(machine: Machine) -> Finding:
    if not machine.gpus:
        return Finding("GPU", "ok", "none; training runs on the processor")
    gpus = (f"{gpu.name} {gpu.memory_bytes / GIB:.0f} GiB" for gpu in machine.gpus)
    return Finding("GPU", "ok", ", ".join(gpus))


def _compiler() -> Finding:
    for name in ("g++", "clang++"):
        answer = output(name, "--version")
        if answer:
            version = re.search(r"\d+(\.\d+)+", answer)
            return Finding("compiler", "ok", f"{name} {version.group() if version else ''}".rstrip())
    return Finding("compiler", "warning", "no C++ compiler; torch.compile is not available",
                   "install g++ (Debian and Ubuntu: apt-get install g++)")


def _clock() -> Finding:
    """Ask systemd, then chrony; in a container the host keeps the clock, and nobody can tell."""
    answer = output("timedatectl", "show", "--property=NTPSynchronized", "--value")
    if answer is None:
        tracking = output("chronyc", "-n", "tracking")
        normal = re.search(r"Leap status\s*:\s*Normal", tracking or "")
        answer = None if tracking is None else "yes" if normal else "no"
    if answer is None:
        return Finding("clock", "unknown", "neither systemd nor chrony answers")
    if answer.strip() == "yes":
        return Finding("clock", "ok", "synchronised")
    return Finding("clock", "warning", "not synchronised", "start a time service: timedatectl set-ntp true")


def _port(port: int) -> Finding:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return Finding("port", "warning", f"{port} on loopback: {error.strerror}",
                           "end the program that holds it, or serve on another one: autoglm serve --port")
    return Finding("port", "ok", f"{port} on loopback is free")
