"""What of a machine needs care when a model of known size is served there: all findings, and the profile they make.

A finding may hold settings, which need no rights: together they are the launch profile of `autoglm serve --profile`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from openautoglm.core import care_memory as memory
from openautoglm.core import care_processor as processor
from openautoglm.core.hardware import Machine
from openautoglm.core.kernel import Kernel
from openautoglm.core.needs import Demand, Finding

BACKSTOP_BYTES = 1 << 30
"""What a process may take beyond the limit of its model before it is refused memory: requests, stacks, libraries."""
_STACK_BYTES = 8 << 20


def examine_model(demand: Demand, machine: Machine, kernel: Kernel) -> list[Finding]:
    """Hold a model against a machine.

    Args:
        demand: what the model takes.
        machine: as `openautoglm.core.hardware.probe` found it; kernel: as `openautoglm.core.kernel.look` did.
    """
    findings = [
        memory.fits(demand, machine),
        memory.group(demand, machine, kernel),
        memory.swap(demand, machine, kernel),
        memory.swappiness(kernel),
        memory.overcommit(demand, kernel),
        memory.pressure(kernel),
        memory.huge_pages(demand, kernel),
        memory.reserved(kernel),
        memory.locked(demand, kernel),
        processor.quota(demand, machine, kernel),
        processor.affinity(demand, machine, kernel),
        processor.nodes(demand, kernel),
        processor.clocks(kernel),
        processor.priority(demand, kernel),
        processor.load(demand, machine, kernel),
    ]
    return [*findings, processor.open_files(demand, kernel)] if demand.connections else findings


def profile_of(findings: Iterable[Finding], demand: Demand) -> dict[str, dict[str, Any]]:
    """The settings of all findings, and those that were asked for; the smallest number of threads counts.

    Returns:
        ``program`` and ``process``, each with its settings.
    """
    made: dict[str, dict[str, Any]] = {"program": {}, "process": {}}
    for finding in findings:
        for place, value in finding.settings.items():
            part, _, name = place.partition(".")
            before = made[part].get(name)
            made[part][name] = min(before, value) if name == "threads" and before is not None else value
    if demand.limit_bytes is not None:
        made["program"]["memory_limit"] = demand.limit_bytes
        if not demand.target.startswith("torch"):  # its libraries ask for far more than they use
            stacks = _STACK_BYTES * (made["program"].get("threads") or 1)
            made["process"]["data_bytes"] = demand.limit_bytes + BACKSTOP_BYTES + stacks
    return made
