"""Weights of native programs come into memory."""

from __future__ import annotations

from openautoglm.graph.ir import Graph
from openautoglm.runtime.native_program import NativeProgram, Prepared
from openautoglm.runtime.packing import LINE, fill
from openautoglm.runtime.program import Facts, Plan
from openautoglm.runtime.tensors import Checkpoint


def weigh(graph: Graph, plan: Plan) -> Facts:
    return Prepared(graph, plan, None).facts()


def lower(graph: Graph, checkpoint: Checkpoint, plan: Plan) -> NativeProgram:
    prepared = Prepared(graph, plan, checkpoint)
    block = prepared.extension.Block(prepared.weight_bytes).array
    at, places = 0, {}
    for item in prepared.lowered.items:
        out = block[at:at + item.bytes]
        fill(item, checkpoint, out, prepared.extension, prepared.team)
        places[item.name] = out
        at += -(-item.bytes // LINE) * LINE
    for bound in prepared.lowered.bounds():
        piece = places[bound.item.name][bound.first:bound.first + bound.bytes]
        if bound.item.kind == "packed":
            prepared.lowered.native.bind_weight(bound.number, piece)
        else:
            prepared.lowered.native.bind_tensor(bound.number, piece)
    return NativeProgram(prepared, "copy")
