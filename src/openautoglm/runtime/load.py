"""From a checkpoint on disk to a program: spec, graph, rules, accounting, weights, in this order."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from openautoglm.core.errors import GraphError
from openautoglm.core.extras import require
from openautoglm.graph.build import build
from openautoglm.graph.ir import Graph
from openautoglm.graph.recipe import Quantisation
from openautoglm.graph.rewrite import Rule, rewrite
from openautoglm.graph.rules.registry import rules_for
from openautoglm.models.checkpoint import read_spec
from openautoglm.runtime.cache import CacheFormat, CacheShape
from openautoglm.runtime.memory import fewer_pages, refuse
from openautoglm.runtime.program import ComputeType, Facts, LoadMode, Plan, Program
from openautoglm.runtime.tensors import Checkpoint
from openautoglm.runtime.weights import check_weights

TARGETS = {"torch": "openautoglm.runtime.torch_program", "native": "openautoglm.runtime.native_load"}
"""Modules that make programs: `weigh(graph, plan)` gives `Facts`, `lower(graph, checkpoint, plan)` a `Program`; perhaps
`share(graph, checkpoint, plan, program)` one on the weights and the cache of another."""
_PACKAGES = {"torch": ("torch", "train")}


class OnDisk(Protocol):
    """Something that lies in a folder, such as an open bundle."""

    @property
    def path(self) -> Path:
        """The folder."""


def load_program(model: str | Path | OnDisk, target: str = "torch:cpu", *, dtype: ComputeType = "fp32",
                 quantise: Quantisation | None = None, pages: int = 256, page_size: int = 16,
                 cache: CacheFormat = "bf16", rules: bool | Iterable[Rule] = True, max_rows: int = 512,
                 max_wanted: int = 64, load: LoadMode = "auto", memory_limit: int | None = None,
                 threads: int | None = None, cpus: Sequence[int] = (), nice: int = 0) -> Program:
    """Load a checkpoint folder or an open bundle, ready to step.

    Args:
        target: ``native``, ``torch:cpu``, ``torch:cuda``, ``torch:cuda:1``.
        dtype: of matrices that are not quantised; norms are in fp32.
        quantise: quantise the linears; None: they stay as they are stored, quantised ones too.
        pages, page_size: the KV cache, in pages of so many tokens; native: a multiple of 16.
        cache: how keys and values are kept.
        rules: rewrite the graph by the rules of the target, by these, or not at all (then `quantise` must be None).
        max_rows, max_wanted: most rows of a step, and most of them whose logits are asked for.
        load: of the target ``native``: ``copy`` weights into memory, ``map`` or ``stream`` a packed file, or ``auto``.
        memory_limit: bytes that the process may take: what it holds already, weights, cache and activations (on a GPU,
            these three on its device). Where they take more, the cache gets fewer pages, and ``native`` streams weights
            from a packed file, as far as needed and with a warning.
        threads: that compute (``native``); None: one for each processor.
        cpus: processors of the threads but the first, which is the caller's; empty: the system decides.
        nice: priority of these threads, 0 to 19.

    Raises:
        BundleError: the checkpoint is damaged or incomplete, or not safetensors.
        SpecError: the architecture is not supported.
        GraphError: no such target, an operator without a kernel there, or `quantise` for a quantised checkpoint.
        ResourceError: more memory than the limit, or no such device; the extension of ``native`` was not built.
        MissingExtraError: the target's package is not installed.
    """
    folder = Path(model) if isinstance(model, str | Path) else model.path
    spec = read_spec(folder)
    shape = CacheShape(spec.layers, spec.kv_heads, spec.head_dim, page_size, pages, cache)
    plan = Plan(spec, target, dtype, shape, max_rows, max_wanted, quantise, load, 0, threads, tuple(cpus), nice)
    maker = _maker(plan)
    checkpoint = Checkpoint(folder)
    graph = _graph(plan, rules, checkpoint)
    check_weights(graph, checkpoint)
    if memory_limit is not None:
        plan = _adapt(graph, checkpoint, plan, memory_limit)
    program: Program = maker.lower(graph, checkpoint, plan)
    return program


def weigh(plan: Plan, folder: Path | None = None) -> Facts:
    """Say what a program will take, without reading a weight; of the target ``native`` exactly.

    Args:
        folder: of the checkpoint, where there is one: weights that are stored quantised stay so.

    Raises:
        BundleError, GraphError, ResourceError, MissingExtraError: as `load_program`.
    """
    maker, checkpoint = _maker(plan), None if folder is None else Checkpoint(folder)
    facts: Facts
    graph = build(plan.spec)
    rewrite(graph, rules_for(plan.family, plan.quantise, stored=checkpoint.forms if checkpoint else {}))
    if plan.family != "native":
        facts = maker.weigh(graph, plan)
        return facts
    small = replace(plan, cache=replace(plan.cache, pages=1))  # a cache of many pages need not be had to be counted
    facts = maker.weigh(graph, small, checkpoint)
    return replace(facts, cache_bytes=plan.cache.bytes)


def load_hidden(model: str | Path | OnDisk, program: Program, *, rules: bool | Iterable[Rule] = True,
                max_rows: int = 256) -> Program:
    """Make a program of the same weights and the same cache whose steps give hidden states in place of logits.

    Its `step` returns the final hidden states, after the last norm, of the wanted rows: fp32 [wanted, hidden_size]; all
    rows may be wanted. It takes memory for the values of its own steps, and none for weights. The two programs belong
    to one thread, and its cache is the other's: its pages must be lent by the same pool.

    Args:
        model, rules: those with which `program` was loaded.
        max_rows: most token rows of a step; at most the program's own.

    Raises:
        GraphError: the target of the program cannot do it.
        ResourceError: the program's weights are streamed.
    """
    folder = Path(model) if isinstance(model, str | Path) else model.path
    rows = min(max_rows, program.plan.max_rows)
    plan = replace(program.plan, max_rows=rows, max_wanted=rows)
    maker = _maker(plan)
    if not hasattr(maker, "share"):
        raise GraphError(f"programs of {plan.target!r} share no weights", remedy="use native or torch:cpu")
    checkpoint = Checkpoint(folder)
    shared: Program = maker.share(_graph(plan, rules, checkpoint, head=False), checkpoint, plan, program)
    return shared


def _graph(plan: Plan, rules: bool | Iterable[Rule], checkpoint: Checkpoint, *, head: bool = True) -> Graph:
    if rules is not True and plan.quantise is not None:
        raise GraphError("a graph is quantised by the rules of its target", where="quantise",
                         remedy="leave `rules` at True, or put QuantiseLinears among yours")
    graph = build(plan.spec, head=head)
    rewrite(graph, rules_for(plan.family, plan.quantise, stored=checkpoint.forms) if rules is True else rules or ())
    return graph


def _maker(plan: Plan) -> Any:
    module = TARGETS.get(plan.family)
    if module is None:
        raise GraphError(f"there is no target {plan.target!r}", remedy=f"known are {', '.join(sorted(TARGETS))}")
    if plan.family in _PACKAGES:
        require(*_PACKAGES[plan.family])
    return importlib.import_module(module)


def _adapt(graph: Graph, checkpoint: Checkpoint, plan: Plan, limit: int) -> Plan:
    """Fewer pages where a program takes more than the limit; a target may know more ways and has its own `adapt`."""
    maker = _maker(plan)
    if hasattr(maker, "adapt"):
        adapted: Plan = maker.adapt(graph, checkpoint, plan, limit)
        return adapted
    facts = maker.weigh(graph, plan)
    smaller = fewer_pages(facts, plan, limit)
    if smaller is None:
        raise refuse(facts, plan, limit)
    return smaller
