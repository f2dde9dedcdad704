"""What serving takes: the engine's own accounting of a program, and the libraries; rates from what a token reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from openautoglm.engine.open import ProgramSettings, planned
from openautoglm.graph.recipe import Quantisation
from openautoglm.models.spec import GlmSpec
from openautoglm.pipeline.estimating.cost import LIBRARIES, Cost
from openautoglm.pipeline.estimating.libraries import library_bytes
from openautoglm.pipeline.estimating.speed import bytes_per_s, products_per_s
from openautoglm.runtime.load import weigh
from openautoglm.runtime.memory import OVERHEAD_BYTES
from openautoglm.runtime.packing import packed_bytes
from openautoglm.runtime.program import Facts, Plan
from openautoglm.runtime.tensors import INDEX_NAME, SINGLE_NAME, Checkpoint

_OF_PRODUCTS = 0.7
_LEAST = 0.95


def serving_cost(spec: GlmSpec, settings: ProgramSettings, limit: int, folder: Path | None = None) -> Cost:
    """Estimate the process that runs the engine (``generate``, or the engine of ``serve``), its cache in full use.

    Args:
        folder: of a checkpoint or a bundle; its weights may be missing.

    Raises:
        BundleError, GraphError, ResourceError, MissingExtraError: it could not be loaded so.
    """
    plan = planned(spec, settings, folder)
    weights = folder if folder is not None and has_weights(folder) else None
    facts = weigh(plan, weights)
    found = moments(plan, facts, weights)
    peak = max(sum(parts.values()) for parts in found.values())
    remedies = () if peak <= limit else tuple(_remedies(spec, settings, folder, weights, peak))
    rates, reckoned = _rates(plan, facts)
    return Cost("serve", found, None, reckoned, _named(plan, weights), limit, rates, remedies)


def has_weights(folder: Path) -> bool:
    """Whether a folder holds weights beside its configuration."""
    from openautoglm.models.quantised_file import is_quantised

    return is_quantised(folder) or any((folder / name).is_file() for name in (INDEX_NAME, SINGLE_NAME))


def moments(plan: Plan, facts: Facts, folder: Path | None) -> dict[str, dict[str, int]]:
    """Parts while weights are read, one tensor mapped at a time, and with the cache in full use."""
    libraries = library_bytes("serve") + OVERHEAD_BYTES
    if plan.family == "torch":
        libraries = library_bytes("compress") + OVERHEAD_BYTES
    held = {"weights": facts.weight_bytes, LIBRARIES: libraries}
    spec, width = plan.spec, 4 if plan.dtype == "fp32" else 2
    if folder is not None and len(Checkpoint(folder).forms):
        width = 1
    largest = width * spec.hidden_size * max(spec.vocab_size, 2 * spec.ffn_size)
    return {"loading": {**held, "the tensor that is read": largest},
            "serving": {**held, "keys and values": facts.cache_bytes, "activations": facts.activation_bytes}}


def _rates(plan: Plan, facts: Facts) -> tuple[dict[str, float], str]:
    """Tokens a second: of one sequence that decodes, and of a prompt that is read."""
    spec, threads = plan.spec, plan.threads or len(os.sched_getaffinity(0))
    table = spec.vocab_size * spec.hidden_size
    per_weight = facts.weight_bytes / spec.parameters
    if plan.quantise is not None:
        per_weight = packed_bytes(plan.quantise.format, 1024, 1024, plan.quantise.group) / (1 << 20)
    moved = (spec.flops_per_token // 2) * per_weight
    read, rate = bytes_per_s(threads, int(moved) // threads), products_per_s() * _OF_PRODUCTS
    decode = moved / read + 2 * (spec.flops_per_token // 2) / rate
    prompt = (spec.flops_per_token - 2 * table) / rate
    return ({"tokens/s of one answer": 1 / decode, "tokens/s of a prompt": 1 / prompt},
            f"an answer's token reads {moved / 1e6:,.0f} MB at {read / 1e9:.1f} GB/s, a prompt's is products at "
            f"{rate / 1e9:.0f} GFLOP/s (of fp32), both measured now, {threads} threads")


def _remedies(spec: GlmSpec, settings: ProgramSettings, folder: Path | None, weights: Path | None, peak: int
              ) -> Iterator[tuple[str, int]]:
    """Changes, each alone, that lower the peak by a twentieth and more."""
    plan = planned(spec, settings, folder)
    changes: dict[str, ProgramSettings] = {}
    stored = weights is not None and len(Checkpoint(weights).forms) > 0
    if settings.quantise is None and not stored:
        changes = {"--dtype bf16": settings.model_copy(update={"dtype": "bf16"})} if plan.dtype == "fp32" else {}
        changes |= {f"--quantise {form}": settings.model_copy(update={"quantise": Quantisation(format=form)})
                    for form in ("int8", "int4")}
    elif settings.quantise is not None and settings.quantise.format == "int8":
        changes = {"--quantise int4": settings.model_copy(update={"quantise": Quantisation(
            format="int4", group=settings.quantise.group)})}
    if plan.cache.format != "int8":
        changes["--kv int8"] = settings.model_copy(update={"cache": "int8", "cache_tokens": plan.cache.slots})
    changes[f"--cache-tokens {plan.cache.slots // 4}"] = settings.model_copy(
        update={"cache_tokens": max(16, plan.cache.slots // 4)})
    for text, change in changes.items():
        smaller = planned(spec, change.model_copy(update={"cache_tokens": change.cache_tokens or plan.cache.slots}),
                          folder)
        needed = max(sum(parts.values()) for parts in moments(smaller, weigh(smaller, weights), weights).values())
        if needed < _LEAST * peak:
            yield text, needed


def _named(plan: Plan, weights: Path | None) -> dict[str, str]:
    """The settings on which the figures depend."""
    form = plan.dtype if plan.quantise is None else f"{plan.quantise.format} in groups of {plan.quantise.group}"
    if weights is not None and plan.quantise is None and len(Checkpoint(weights).forms):
        form = "as stored, quantised"
    return {"model": f"{plan.spec.parameters:,} parameters, {plan.spec.layers} layers of width {plan.spec.hidden_size}",
            "target": plan.target, "weights": form,
            "cache": f"{plan.cache.slots:,} tokens in {plan.cache.format}",
            "step": f"at most {plan.max_rows} rows, {plan.max_wanted} sequences"}


def with_cache(plan: Plan, tokens: int) -> Plan:
    """The plan with a cache of which so many tokens are in use."""
    pages = max(1, min(plan.cache.pages, -(-tokens // plan.cache.page_size)))
    return replace(plan, cache=replace(plan.cache, pages=pages))
