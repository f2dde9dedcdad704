"""The text manifest of an edge model: what was lowered, where its weights lie, and what stands around a prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from openautoglm.edge.record import Call, Recorded, Shape
from openautoglm.runtime.buffers import Place
from openautoglm.runtime.lowered import Lowered
from openautoglm.runtime.packed_files import PackedFile
from openautoglm.runtime.program import Plan
from openautoglm.text.template import Frame

VERSION = "1"
NAME, WEIGHTS, TOKENIZER = "manifest.txt", "weights.safetensors", "tokenizer.bin"


@dataclass(frozen=True)
class Record:
    """How the columns of a record become a prompt.

    Attributes:
        pieces: texts, each with the column whose value stands behind it, None where nothing does; empty where prompts
            are not made of columns.
        lenient: columns may be missing.
    """

    pieces: Sequence[tuple[str, str | None]] = ()
    lenient: bool = False


@dataclass(frozen=True)
class Facts:
    """What a manifest says beside the program.

    Attributes:
        name: of the model.
        vocabulary: ids from here on are never generated.
        max_tokens: most tokens of an answer where nobody says another number.
    """

    name: str
    frame: Frame
    vocabulary: int
    max_tokens: int
    record: Record


def manifest(facts: Facts, plan: Plan, lowered: Lowered, packed: PackedFile) -> str:
    """The text of a manifest; docs/edge.md tells its lines."""
    return "".join(f"{line}\n" for part in (_head(facts, plan, lowered.native), _weights(lowered, packed),
                                            _program(lowered.native)) for line in part)


def _head(facts: Facts, plan: Plan, program: Recorded) -> Iterator[str]:
    shape, frame = plan.cache, facts.frame
    yield f"autoglm-edge {VERSION}"
    yield f"name {json.dumps(facts.name)}"
    yield f"weights {WEIGHTS}"
    yield f"tokenizer {TOKENIZER}"
    yield f"vocabulary {facts.vocabulary}"
    yield f"max_tokens {facts.max_tokens}"
    for name, ids in (("stop", frame.stops), ("before", frame.before), ("after", frame.after), ("empty", frame.empty)):
        yield " ".join([name, *map(str, ids)])
    yield f"lead {json.dumps(frame.lead)}"
    yield f"strip {json.dumps(frame.strip)}"
    for text, column in facts.record.pieces:
        yield f"text {json.dumps(text)}"
        if column is not None:
            yield f"column {json.dumps(column)}"
    yield f"lenient {int(facts.record.lenient)}"
    yield f"rows {program.max_rows}"
    yield f"positions {plan.spec.max_positions}"
    yield f"cache {shape.layers} {shape.page_size} {shape.kv_heads} {shape.head_dim} {shape.format}"
    yield f"arena {program.arena_bytes}"


def _weights(lowered: Lowered, packed: PackedFile) -> Iterator[str]:
    numbers = {item: number for number, item in enumerate(lowered.items)}
    for item in lowered.items:
        yield f"item {packed.offset(item)} {item.bytes} {packed.checksums[item.name]} {item.name}"
    bounds = sorted(lowered.bounds(), key=lambda bound: bound.number)
    for bound in bounds:
        if bound.item.kind == "packed":
            shape: Shape = lowered.native.weights[bound.number]
            yield (f"weight {shape.format} {shape.rows} {shape.columns} {shape.group} {int(shape.symmetric)} "
                   f"{numbers[bound.item]} {bound.first} {bound.bytes}")
    for bound in bounds:
        if bound.item.kind == "rows":
            shape = lowered.native.tensors[bound.number]
            yield f"rows_of {shape.format} {shape.rows} {shape.columns} {numbers[bound.item]}"
    for theta, dims in lowered.native.tables:
        yield f"table {theta!r} {dims}"


def _program(program: Recorded) -> Iterator[str]:
    for call in program.calls:
        yield _call(call)
        yield from (_place("in", place) for place in call.inputs)
        yield from (_place("out", place) for place in call.outputs)


def _call(call: Call) -> str:
    numbers = f"{call.weight} {call.tensor} {call.table} {call.eps!r} {call.scale!r} {call.head_dim} {call.layer}"
    return f"call {call.kind} {int(call.barrier)} {numbers}"


def _place(way: str, place: Place) -> str:
    return f"{way} {place.space} {int(place.wanted)} {place.offset} {place.stride} {place.width} {place.group}"
