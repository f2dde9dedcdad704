"""Programs of the target `native`: threads of the extension walk a flat list of operators, with no torch and no Python.

The KV cache, the arena of values and the weights are one block of memory each, on pages of 2 MiB where it gets them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openautoglm.core.errors import GraphError, ResourceError
from openautoglm.core.hardware import usable_cores
from openautoglm.graph.ir import Graph
from openautoglm.runtime.layout import Int32, Layout
from openautoglm.runtime.lowered import Bound, Lowered
from openautoglm.runtime.memory import base_bytes
from openautoglm.runtime.native import REMEDY, native_module, why_not
from openautoglm.runtime.native_lower import lower_graph
from openautoglm.runtime.packing import LINE, Bytes, Form
from openautoglm.runtime.program import Facts, Float32, Plan, check_pages, check_step
from openautoglm.runtime.tensors import Checkpoint

LEAST_PAGE = 16
"""Pages of the native cache hold a multiple of so many tokens."""


class NativeProgram:
    """See `Program`. Made by `openautoglm.runtime.load.load_program`.

    Attributes:
        plan, facts: as of every program; what `facts` says of weights and activations is exact.
        threads, isa: how many threads compute at the most, and on which instruction path.
        load: how the weights came into memory: ``copy``, ``map`` or ``stream``.
        weights: by their forms (`Item.form`), where they lie; empty where they are streamed.
    """

    def __init__(self, prepared: Prepared, load: str, facts: Facts, run: Callable[..., None] | None = None,
                 weights: Mapping[Form, Bytes] | None = None) -> None:
        self.plan, self.facts, self.load = prepared.plan, facts, load
        self.prepared, self.weights = prepared, weights or {}
        self._run = run or prepared.lowered.native.step
        self._native, self._team, self._cache = prepared.lowered.native, prepared.team, prepared.cache
        self.threads: int = self._team.threads
        self.isa: str = self._team.isa
        self._page_size, self._width = self.plan.cache.page_size, prepared.width

    def step(self, ids: Int32, positions: Int32, layout: Layout, wanted: Int32) -> Float32:
        """See `Program.step`."""
        logits = np.empty((len(wanted), self._width), np.float32)
        try:
            self._run(ids, positions, layout.first_rows, layout.lengths, layout.page_table, layout.page_size, wanted,
                      logits)
        except (ValueError, TypeError) as error:
            rows = check_step(self.plan, ids, positions, layout, wanted)  # says what is wrong, where it is known
            if isinstance(error, ValueError):
                raise GraphError(str(error), where="step") from error
            self._run(rows.ids, rows.positions, layout.first_rows, layout.lengths, layout.page_table,
                      layout.page_size, rows.wanted, logits)
        return logits

    def copy_pages(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """See `Program.copy_pages`."""
        check_pages(self.plan, sources, targets)
        for source, target in zip(sources, targets, strict=True):
            self._cache.copy_page(source, target)

    def sample(self, logits: Float32, temperature: Float32, top_k: Int32, top_p: Float32, min_p: Float32,
               uniforms: NDArray[np.float64]) -> tuple[Int32, Float32]:
        """Choose an id for each row, as `openautoglm.engine.sample.sample`, on the program's threads.

        Returns:
            ids [rows], and their log-probabilities at temperature 1 without filters.
        """
        ids, logprobs = np.empty(len(logits), np.int32), np.empty(len(logits), np.float32)
        self._team.sample(logits, temperature, top_k, top_p, min_p, uniforms, ids, logprobs)
        return ids, logprobs

    @property
    def peak_activation_bytes(self) -> int:
        """Bytes of the arena: what the values of a step take at its worst moment."""
        return int(self._native.arena_bytes)


class Prepared:
    """A program without its weights: enough to know what it takes.

    Args:
        beside: another one, whose threads and cache it uses.
    """

    def __init__(self, graph: Graph, plan: Plan, checkpoint: Checkpoint | None, *, most_bytes: int = 0,
                 beside: Prepared | None = None) -> None:
        self.plan, self.extension, self.base_bytes = plan, extension(), base_bytes(plan)
        self.width = int(graph.outputs[0].type.shape[1])
        self.team: Any
        self.cache: Any
        self.team, self.cache = (beside.team, beside.cache) if beside is not None else self._team_and_cache(plan)
        self.lowered: Lowered = lower_graph(graph, plan, checkpoint, self.extension, self.team, self.cache,
                                            most_bytes=most_bytes, beside=beside.lowered.items if beside else ())
        if plan.threads is None:
            self.lowered.native.measure_threads()

    def _team_and_cache(self, plan: Plan) -> tuple[Any, Any]:
        if plan.cache.page_size % LEAST_PAGE:
            raise ResourceError(f"pages of {plan.cache.page_size} tokens do not fit the native target",
                                where=plan.target, remedy=f"use a page_size that {LEAST_PAGE} divides")
        threads = plan.threads or usable_cores()
        shape = plan.cache
        try:
            team = self.extension.Team(threads, "", list(plan.cpus), plan.nice)
            return team, self.extension.Cache(shape.layers, shape.pages, shape.page_size, shape.kv_heads,
                                              shape.head_dim, shape.format)
        except ValueError as error:
            raise ResourceError(str(error), where=plan.target,
                                remedy="choose other threads, or the target torch:cpu") from error
        except MemoryError as error:
            raise ResourceError(f"a cache of {shape.bytes} bytes cannot be had", where=plan.target,
                                remedy="use fewer pages") from error

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights, each at a multiple of 64."""
        return sum(-(-item.bytes // LINE) * LINE for item in self.lowered.items)

    def bind(self, bound: Bound, weight: Bytes) -> None:
        """Tell the program where the bytes of a weight lie."""
        native, piece = self.lowered.native, weight[bound.first:bound.first + bound.bytes]
        (native.bind_weight if bound.item.kind == "packed" else native.bind_tensor)(bound.number, piece)

    def facts(self) -> Facts:
        """What the program takes: all weights copied."""
        native, plan = self.lowered.native, self.plan
        logits = 4 * plan.max_wanted * self.width
        work = native.arena_bytes + native.scratch_bytes + native.table_bytes + logits
        return Facts(self.weight_bytes, plan.cache.bytes, work, base_bytes=self.base_bytes)


def extension() -> ModuleType:
    """The extension.

    Raises:
        ResourceError: there is none.
    """
    module = native_module()
    if module is None:
        raise ResourceError(why_not(), where="native", remedy=REMEDY)
    return module
