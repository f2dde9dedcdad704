"""From a checkpoint on disk to a program: spec, graph, rules, accounting, weights, in this order."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from openautoglm.core.errors import BundleError, GraphError, ResourceError
from openautoglm.core.extras import require
from openautoglm.core.files import read_json
from openautoglm.graph.build import build
from openautoglm.graph.rewrite import Rule, rewrite
from openautoglm.graph.rules.registry import standard_rules
from openautoglm.models.spec import GlmSpec
from openautoglm.runtime.cache import CacheFormat, CacheShape
from openautoglm.runtime.program import ComputeType, Facts, Plan, Program
from openautoglm.runtime.tensors import Checkpoint
from openautoglm.runtime.weights import check_weights

TARGETS = {"torch": "openautoglm.runtime.torch_program"}
"""Modules that make programs: `weigh(graph, plan)` gives `Facts`, `lower(graph, checkpoint, plan)` a `Program`."""
_PACKAGES = {"torch": ("torch", "train")}


class OnDisk(Protocol):
    """Something that lies in a folder, such as an open bundle."""

    @property
    def path(self) -> Path:
        """The folder."""


def load_program(model: str | Path | OnDisk, target: str = "torch:cpu", *, dtype: ComputeType = "fp32",
                 pages: int = 256, page_size: int = 16, cache: CacheFormat = "bf16",
                 rules: bool | Iterable[Rule] = True, max_rows: int = 512, max_wanted: int = 64,
                 memory_limit: int | None = None) -> Program:
    """Load a checkpoint folder or an open bundle, ready to step.

    Args:
        target: ``torch:cpu``, ``torch:cuda``, ``torch:cuda:1``.
        dtype: of products; norms are in fp32.
        pages, page_size: the KV cache, in pages of so many tokens.
        cache: how keys and values are kept.
        rules: rewrite the graph by the standard rules, by these, or not at all.
        max_rows, max_wanted: most rows of a step, and most of them whose logits are asked for.
        memory_limit: bytes that weights, cache and activations may take together; checked before loading.

    Raises:
        BundleError: the checkpoint is damaged or incomplete, or not safetensors.
        SpecError: the architecture is not supported.
        GraphError: no such target, or an operator without a kernel there.
        ResourceError: more memory than the limit, or no such device.
        MissingExtraError: the target's package is not installed.
    """
    folder = Path(model) if isinstance(model, str | Path) else model.path
    spec = _spec(folder)
    shape = CacheShape(spec.layers, spec.kv_heads, spec.head_dim, page_size, pages, cache)
    plan = Plan(spec, target, dtype, shape, max_rows, max_wanted)
    maker = _maker(plan)
    graph = build(spec)
    rewrite(graph, standard_rules() if rules is True else rules or ())
    checkpoint = Checkpoint(folder)
    check_weights(graph, checkpoint)
    if memory_limit is not None:
        _refuse_too_much(maker.weigh(graph, plan), plan, memory_limit)
    program: Program = maker.lower(graph, checkpoint, plan)
    return program


def _spec(folder: Path) -> GlmSpec:
    path = folder / "config.json"
    try:
        config = read_json(path)
    except (OSError, ValueError) as error:
        raise BundleError(f"config.json cannot be read: {error}", where=str(folder),
                          remedy="give a folder that holds a transformers checkpoint") from error
    if not isinstance(config, dict):
        raise BundleError("config.json is no mapping", where=str(folder), remedy="fetch the checkpoint again")
    return GlmSpec.from_config(config, where=str(path))


def _maker(plan: Plan) -> Any:
    module = TARGETS.get(plan.family)
    if module is None:
        raise GraphError(f"there is no target {plan.target!r}", remedy=f"known are {', '.join(sorted(TARGETS))}")
    if plan.family in _PACKAGES:
        require(*_PACKAGES[plan.family])
    return importlib.import_module(module)


def _refuse_too_much(facts: Facts, plan: Plan, limit: int) -> None:
    """Refuse what does not fit, and say what would."""
    if facts.total_bytes <= limit:
        return
    pages = (limit - facts.weight_bytes - facts.activation_bytes) // plan.cache.page_bytes
    if pages > 0:
        remedy = f"at most {pages} pages fit in place of {plan.cache.pages}"
        if plan.cache.format != "int8":
            remedy += ", or keep the cache in int8"
    elif facts.weight_bytes + plan.cache.page_bytes < limit:
        remedy = f"lower max_rows ({plan.max_rows}) or max_wanted ({plan.max_wanted}), and pages ({plan.cache.pages})"
    elif plan.dtype == "fp32":
        remedy = "load with dtype bf16, compress the model, or take a smaller one"
    else:
        remedy = "compress the model to int8 or int4, or take a smaller one"
    raise ResourceError(f"the program takes {facts.total_bytes} bytes (weights {facts.weight_bytes}, cache "
                        f"{facts.cache_bytes}, activations {facts.activation_bytes}), the limit is {limit}",
                        where=plan.target, remedy=remedy)
