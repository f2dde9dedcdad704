"""What a model takes when an engine runs it, told without loading it: the engine's own accounting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from openautoglm.core.hardware import Machine, probe
from openautoglm.core.needs import Demand
from openautoglm.engine.open import ProgramSettings, planned
from openautoglm.graph.recipe import Quantisation
from openautoglm.models.checkpoint import read_spec
from openautoglm.models.quantised_file import is_quantised
from openautoglm.runtime.load import packed_fits, weigh
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
    plan = planned(read_spec(folder), program, folder, machine.available_bytes)
    plan = replace(plan, threads=program.threads or machine.cores)
    packed, facts = packed_fits(plan, folder), weigh(plan, folder)
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


def _quantised_bytes(folder: Path, plan: Plan, form: str) -> int:
    """What the program would take with weights in another form."""
    recipe = Quantisation.model_validate({"format": form})
    return weigh(replace(plan, quantise=recipe), folder).total_bytes


def _pack_command(folder: Path, program: ProgramSettings) -> str:
    """What writes the packed file that these settings look for."""
    asked = program.model_dump(mode="json", include={"quantise", "dtype"}, exclude_none=True)
    return (f"python -c \"from openautoglm.engine.open import *; pack({str(folder)!r}, "
            f"ProgramSettings.model_validate({asked!r}))\"")
