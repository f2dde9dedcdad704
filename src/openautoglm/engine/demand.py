"""What a model takes when an engine runs it, told without loading it: the engine's own accounting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from openautoglm.core.hardware import Machine, probe
from openautoglm.core.needs import Demand
from openautoglm.engine.open import PAGE_SIZE, ProgramSettings, best_target, cache_format, cache_pages
from openautoglm.graph.recipe import Quantisation
from openautoglm.models.checkpoint import read_spec, stored_type
from openautoglm.models.quantised_file import is_quantised
from openautoglm.runtime.cache import CacheShape
from openautoglm.runtime.load import weigh_checkpoint
from openautoglm.runtime.program import Plan

_SMALLER = ("int8", "int4")


def demand_of(folder: Path, program: ProgramSettings, *, name: str | None = None, machine: Machine | None = None,
              connections: int = 0, nice: int | None = None) -> Demand:
    """Account for the checkpoint or bundle in `folder` as `open_engine` with these settings would run it.

    Args:
        name: of the model in commands that are told; the folder when None.
        machine: whose free memory bounds a cache of no given size.
        connections, nice: as of `Demand`.

    Raises:
        BundleError, SpecError, GraphError, ResourceError, MissingExtraError: as `open_engine`.
    """
    machine = machine or probe()
    plan = _plan(folder, program, machine)
    facts, packed = weigh_checkpoint(folder, plan)
    shape = plan.cache
    smaller = {} if plan.quantise is not None or is_quantised(folder) else {
        f"--quantise {form}": facts.base_bytes + _quantised_bytes(folder, plan, form) for form in _SMALLER}
    packs = plan.family == "native" and name in (None, str(folder))  # what an archive was unpacked to will be gone
    return Demand(
        model=name or str(folder), target=plan.target, weight_bytes=facts.weight_bytes,
        work_bytes=facts.activation_bytes,
        base_bytes=facts.base_bytes, token_bytes=shape.page_bytes // shape.page_size, page_tokens=shape.page_size,
        cache_tokens=shape.slots, longest=plan.spec.max_positions, cache_asked=program.cache_tokens is not None,
        packed=packed, load=program.load, smaller=smaller, pack=_pack_command(folder, program) if packs else "",
        threads=program.threads, nice=nice, limit_bytes=program.memory_limit, connections=connections)


def _plan(folder: Path, program: ProgramSettings, machine: Machine) -> Plan:
    """The plan that `open_engine` makes, with threads that are told."""
    spec = read_spec(folder)
    cache, target = cache_format(folder, program), program.target
    pages = cache_pages(spec, program, cache, machine.available_bytes)
    shape = CacheShape(spec.layers, spec.kv_heads, spec.head_dim, PAGE_SIZE, pages, cache)
    return Plan(spec, best_target(spec) if target == "auto" else target, program.dtype or stored_type(folder), shape,
                program.max_rows, program.max_wanted, program.quantise, program.load,
                threads=program.threads or machine.cores)


def _quantised_bytes(folder: Path, plan: Plan, form: str) -> int:
    """What the program would take with weights in another form."""
    recipe = Quantisation.model_validate({"format": form})
    return weigh_checkpoint(folder, replace(plan, quantise=recipe))[0].total_bytes


def _pack_command(folder: Path, program: ProgramSettings) -> str:
    """What writes the packed file that these settings look for."""
    asked = program.model_dump(mode="json", include={"quantise", "dtype"}, exclude_none=True)
    return (f"python -c \"from openautoglm.engine.open import *; pack({str(folder)!r}, "
            f"ProgramSettings.model_validate({asked!r}))\"")
