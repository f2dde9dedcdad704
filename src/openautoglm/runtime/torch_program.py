"""A graph as a list of torch kernels: the reference for all other targets, on the CPU and on CUDA."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from openautoglm.core.errors import ResourceError
from openautoglm.core.extras import installed
from openautoglm.graph.ir import Graph, Node, Value
from openautoglm.graph.sources import Quantised
from openautoglm.runtime.kernels import Kernel, kernel_of
from openautoglm.runtime.layout import Int32, Layout
from openautoglm.runtime.liveness import last_reads, peak_bytes
from openautoglm.runtime.memory import base_bytes
from openautoglm.runtime.program import Facts, Float32, Plan, check_pages, check_step
from openautoglm.runtime.quantised import QuantisedMatrix
from openautoglm.runtime.tensors import Bf16, Checkpoint
from openautoglm.runtime.torch_attention import MOST_GATHERED, TorchLayout
from openautoglm.runtime.torch_cache import TorchCache
from openautoglm.runtime.torch_kernels import Matrix, TorchContext, TorchQuantised
from openautoglm.runtime.weights import Weight, quantised_bytes, weight_of

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class _Call:
    """One operator: its kernel, where its inputs and outputs lie in the list of values, and which die after it."""

    kernel: Kernel
    node: Node
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dead: tuple[int, ...]


class TorchProgram:
    """See `Program`. Weights are read one by one; values are let go after their last reader."""

    def __init__(self, graph: Graph, checkpoint: Checkpoint, plan: Plan, beside: TorchProgram | None = None) -> None:
        self.plan, self.facts = plan, weigh(graph, plan)
        self._device = _device(plan.device)
        cache = TorchCache(plan.cache, self._device) if beside is None else beside._context.cache
        self._context: TorchContext = TorchContext(cache, _TYPES[plan.dtype])
        self._weights: dict[tuple[str, str], Matrix] = {} if beside is None else dict(beside._weights)
        places = {value: place for place, value in enumerate(graph.values())}
        self._values: list[object] = [None] * len(places)
        for value in graph.weights.values():
            key = (value.name, repr(value.source))
            if key not in self._weights:
                self._weights[key] = _placed(weight_of(value, checkpoint), _weight_type(value, plan), self._device)
            self._values[places[value]] = self._weights[key]
        self._inputs = {value.name: places[value] for value in graph.inputs}
        self._output = places[graph.outputs[0]]
        self._calls = [
            _Call(kernel_of(node.operator, "torch"), node, *(tuple(places[value] for value in values)
                                                             for values in (node.inputs, node.outputs, dead)))
            for node, dead in zip(graph.nodes, last_reads(graph), strict=True)]

    def step(self, ids: Int32, positions: Int32, layout: Layout, wanted: Int32) -> Float32:
        """See `Program.step`."""
        rows = check_step(self.plan, ids, positions, layout, wanted)
        values = list(self._values)
        for name, array in rows._asdict().items():
            values[self._inputs[name]] = torch.from_numpy(array.astype(np.int64)).to(self._device)
        values[self._inputs["layout"]] = TorchLayout(layout, self._device)
        with torch.inference_mode():
            for call in self._calls:
                made = call.kernel([values[place] for place in call.inputs], call.node.attributes, self._context)
                for place, value in zip(call.outputs, made, strict=True):
                    values[place] = value
                for place in call.dead:
                    values[place] = None
            logits = values[self._output]
            self._context.turns.clear()
        result: Float32 = logits.float().cpu().numpy()  # type: ignore[attr-defined]
        return result

    def copy_pages(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """See `Program.copy_pages`."""
        check_pages(self.plan, sources, targets)
        self._context.cache.copy_pages(sources, targets)

    def held_bytes(self) -> tuple[int, int]:
        """Bytes of weights and of the cache as they lie in memory: what `facts` foretold."""
        weights = sum(value.nbytes for value in self._values if isinstance(value, Matrix))
        return weights, self._context.cache.bytes


def lower(graph: Graph, checkpoint: Checkpoint, plan: Plan) -> TorchProgram:
    """Make a program of a graph whose weights `check_weights` has found whole.

    Raises:
        GraphError: an operator has no kernel.
        BundleError: a weight cannot be read.
        ResourceError: there is no such device.
    """
    _kernels()
    return TorchProgram(graph, checkpoint, plan)


def share(graph: Graph, checkpoint: Checkpoint, plan: Plan, program: TorchProgram) -> TorchProgram:
    """Make a program on the weights and the cache of another one; a weight which that has not is read."""
    made = TorchProgram(graph, checkpoint, plan, program)
    own = sum(weight.nbytes for key, weight in made._weights.items() if key not in program._weights)
    made.facts = Facts(own, 0, made.facts.activation_bytes)
    return made


def weigh(graph: Graph, plan: Plan) -> Facts:
    """Say what the program will take, before anything is loaded."""
    width = _TYPES[plan.dtype].itemsize
    sizes = {"rows": plan.max_rows, "wanted": plan.max_wanted}
    weights = sum(_stored_bytes(value, plan) for value in graph.weights.values())
    peak = peak_bytes(graph, sizes, lambda value: width, _scratch(sizes, plan, width))
    width_out = int(graph.outputs[0].type.shape[1])
    return Facts(weights, plan.cache.bytes, peak + 4 * plan.max_wanted * width_out, base_bytes=base_bytes(plan))


def _scratch(sizes: dict[str, int], plan: Plan, width: int) -> Callable[[Node], int]:
    """Work space of a node: fp32 copies of norms and rotary positions, gathered pages, dequantised weights."""
    spec = plan.spec

    def elements(value: Value) -> int:
        return math.prod(sizes[dim] if isinstance(dim, str) else dim for dim in value.type.shape)

    def work(node: Node) -> int:
        if node.operator == "paged_attention":
            longest = min(plan.cache.slots, spec.max_positions)
            gathered = 2 * spec.kv_size * max(longest, MOST_GATHERED) * (width + (4 if width < 4 else 0))
            return gathered + plan.max_rows * longest * 5 + 2 * plan.max_rows * spec.query_size * width
        if "norm" in node.operator or node.operator == "rotary":
            return 3 * 4 * elements(node.inputs[0])
        if node.operator == "embedding":
            return elements(node.output) * (8 + width)
        unlike = [value for value in node.inputs if isinstance(value.source, Quantised)]
        return sum(elements(value) * (8 + width) for value in unlike)

    return work


def _stored_bytes(value: Value, plan: Plan) -> int:
    shape = tuple(int(dim) for dim in value.type.shape)
    if isinstance(value.source, Quantised) and value.source.format in ("int8", "int4"):
        return quantised_bytes(shape, value.source)
    return math.prod(shape) * _weight_type(value, plan).itemsize


def _weight_type(value: Value, plan: Plan) -> torch.dtype:
    """Vectors are kept in fp32, matrices as the plan says, or in the format that their source names."""
    if isinstance(value.source, Quantised) and value.source.format in _TYPES:
        return _TYPES[value.source.format]
    return _TYPES[plan.dtype] if len(value.type.shape) > 1 else torch.float32


def _placed(weight: Weight, dtype: torch.dtype, device: torch.device) -> Matrix:
    """Copy a weight out of the mapped file to where it is used."""
    if isinstance(weight, QuantisedMatrix):
        return TorchQuantised(weight, device)
    if isinstance(weight, Bf16):
        return torch.from_numpy(weight.bits.view(np.int16).copy()).view(torch.bfloat16).to(device, dtype)
    return torch.from_numpy(weight.copy()).to(device, dtype)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ResourceError(f"torch has no device {name!r} here", where=f"torch:{name}",
                            remedy="use torch:cpu, or install torch and a driver for the device") from error
    return device


def _kernels() -> None:
    """Let the kernels of the fused operators register themselves, which only rules make."""
    if installed("openautoglm.runtime.torch_fused"):
        importlib.import_module("openautoglm.runtime.torch_fused")
