"""Weights of native programs come into memory: from a packed file if a fitting one is there, else from the checkpoint.

``copy``: into one block of memory, on pages of 2 MiB. ``map``: the packed file is mapped read-only; the system reads
what is used and may drop it again. ``stream``: see `runtime/streaming.py`. ``auto``: copied where it fits, else mapped.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from openautoglm.core.errors import BundleError, GraphError, ResourceError
from openautoglm.core.log import get
from openautoglm.graph.build import build
from openautoglm.graph.ir import Graph
from openautoglm.graph.recipe import Quantisation
from openautoglm.graph.rewrite import rewrite
from openautoglm.graph.rules.registry import rules_for
from openautoglm.models.card import note_file
from openautoglm.models.checkpoint import read_spec
from openautoglm.runtime.cache import CacheShape
from openautoglm.runtime.memory import fewer_pages, free_bytes, least_pages, refuse
from openautoglm.runtime.native_program import NativeProgram, Prepared
from openautoglm.runtime.packed_files import PackedFile, file_name, open_packed, write_packed
from openautoglm.runtime.packing import LINE, Bytes, Form, Item, fill
from openautoglm.runtime.program import ComputeType, Facts, Plan
from openautoglm.runtime.streaming import Streamer
from openautoglm.runtime.tensors import Checkpoint
from openautoglm.runtime.weights import check_weights

_log = get(__name__)
_READERS = 2
LEAST_STREAMED = 1 << 20
_PACK = "write a packed file with openautoglm.runtime.native_load.pack_checkpoint"


def weigh(graph: Graph, plan: Plan, checkpoint: Checkpoint | None = None) -> Facts:
    """Say what the program will take with all its weights in memory."""
    return Prepared(graph, plan, checkpoint).facts()


def packed_fits(graph: Graph, plan: Plan, checkpoint: Checkpoint) -> bool:
    """Whether a packed file that fits lies beside the checkpoint."""
    return _fitting(Prepared(graph, plan, checkpoint), checkpoint) is not None


def lower(graph: Graph, checkpoint: Checkpoint, plan: Plan) -> NativeProgram:
    """Make a program of a graph whose weights `check_weights` has found whole.

    Raises:
        GraphError: an operator that the target does not know.
        BundleError: a weight cannot be read.
        ResourceError: there is no extension, or weights that must be packed are not.
    """
    prepared = Prepared(graph, plan, checkpoint)
    packed = _fitting(prepared, checkpoint)
    mode = _mode(prepared, packed)
    if mode == "copy":
        return _copied(prepared, checkpoint, packed)
    if packed is None:
        raise ResourceError(f"weights cannot be {'mapped' if mode == 'map' else 'streamed'}: there is no fitting "
                            f"{file_name(plan)}", where=str(checkpoint.folder), remedy=f"{_PACK}, or use load='copy'")
    if mode == "map":
        return _mapped(prepared, packed)
    return Streamer(graph, plan, checkpoint, packed).program()


def share(graph: Graph, checkpoint: Checkpoint, plan: Plan, program: NativeProgram) -> NativeProgram:
    """Make a program on the weights, the threads and the cache of another one.

    Raises:
        ResourceError: the weights are streamed.
        GraphError: the graph has weights which the other program has not, or in another form.
    """
    if not program.weights:
        raise ResourceError("streamed weights cannot be shared", where="load",
                            remedy="load with more memory, so that weights are copied or mapped")
    prepared = Prepared(graph, plan, checkpoint, beside=program.prepared)
    for bound in prepared.lowered.bounds():
        place = program.weights.get(bound.item.form)
        if place is None:
            raise GraphError("is no weight of the other program", where=bound.item.name,
                             remedy="use the rules with which it was loaded")
        prepared.bind(bound, place)
    return NativeProgram(prepared, program.load, Facts(0, 0, prepared.facts().activation_bytes),
                         weights=program.weights)


def adapt(graph: Graph, checkpoint: Checkpoint, plan: Plan, limit: int) -> Plan:
    """Make a plan smaller until the process takes at most `limit` bytes with it: fewer pages, then streamed weights.

    Raises:
        ResourceError: it does not fit at all; the remedy says what would.
    """
    cache = replace(plan.cache, pages=least_pages(plan))
    prepared = Prepared(graph, replace(plan, cache=cache), checkpoint)
    facts = replace(prepared.facts(), cache_bytes=plan.cache.bytes)
    if plan.load == "map":
        facts = replace(facts, weight_bytes=0)
    smaller = None if plan.load == "stream" else fewer_pages(facts, plan, limit)
    if smaller is not None:
        return smaller
    room = limit - facts.base_bytes - facts.activation_bytes - cache.bytes
    if plan.load not in ("auto", "stream") or room < LEAST_STREAMED:
        raise refuse(facts, plan, limit)
    if _fitting(prepared, checkpoint) is None:
        raise refuse(facts, plan, limit, f"; or {_PACK}, then its weights can be streamed")
    fewer = "" if cache.pages == plan.cache.pages else f", the cache has {cache.pages} pages, not {plan.cache.pages}"
    _log.warning("%d bytes of weights are streamed from disk%s: %d bytes are the limit", facts.weight_bytes, fewer,
                 limit)
    return replace(plan, load="stream", stream_bytes=room, cache=cache)


def pack_checkpoint(folder: str | Path, quantise: Quantisation | None = None, dtype: ComputeType = "bf16", *,
                    threads: int | None = None) -> Path:
    """Write the packed weights of a checkpoint beside it, for programs that are loaded with the same recipe and type.

    In a bundle its hash is put on the card, so that copies of the bundle hold it too.

    Args:
        quantise: as of `load_program`.
        dtype: of matrices that are not quantised.
        threads: that round and pack; None: one for each processor.

    Raises:
        BundleError, SpecError, GraphError, ResourceError: as of `load_program`.
    """
    spec = read_spec(Path(folder))
    shape = CacheShape(spec.layers, spec.kv_heads, spec.head_dim, 16, 1, "bf16")
    plan = Plan(spec, "native", dtype, shape, 1, 1, quantise, threads=threads)
    checkpoint, graph = Checkpoint(folder), build(spec)
    rewrite(graph, rules_for("native", quantise, stored=checkpoint.forms))
    check_weights(graph, checkpoint)
    prepared = Prepared(graph, plan, checkpoint)
    path = Path(folder) / file_name(plan)
    write_packed(path, prepared.lowered.items, checkpoint, plan, prepared.extension, prepared.team)
    note_file(path.parent, path.name)
    return path


def _fitting(prepared: Prepared, checkpoint: Checkpoint) -> PackedFile | None:
    """The packed file beside the checkpoint, unless it does not fit: then it is told why, and left alone."""
    try:
        return open_packed(prepared.lowered.items, checkpoint, prepared.plan, prepared.extension)
    except BundleError as error:
        if prepared.plan.load in ("map", "stream"):
            raise
        _log.warning("a packed file is not used: %s", error)
        return None


def _mode(prepared: Prepared, packed: PackedFile | None) -> str:
    if prepared.plan.load != "auto":
        return prepared.plan.load
    needed, free = prepared.facts().total_bytes, free_bytes()
    if needed <= free:
        return "copy"
    if packed is not None:
        _log.warning("the program takes %d bytes, %d are free: weights are mapped, not copied", needed, free)
        return "map"
    raise ResourceError(f"the program takes {needed} bytes, {free} are free", where=prepared.plan.target,
                        remedy=f"{_PACK}, then its weights can be mapped; or compress the model, or use fewer pages")


def _copied(prepared: Prepared, checkpoint: Checkpoint, packed: PackedFile | None) -> NativeProgram:
    places: dict[Item, Bytes] = {}
    block, at = prepared.extension.Block(prepared.weight_bytes).array, 0
    for item in prepared.lowered.items:
        places[item] = block[at:at + item.bytes]
        at += -(-item.bytes // LINE) * LINE
    if packed is None or not _read(packed, places):
        for item, out in places.items():
            fill(item, checkpoint, out, prepared.extension, prepared.team)
    for bound in prepared.lowered.bounds():
        prepared.bind(bound, places[bound.item])
    return NativeProgram(prepared, "copy", prepared.facts(), weights=_by_form(places))


def _read(packed: PackedFile, places: Mapping[Item, Bytes]) -> bool:
    """Read all weights of a packed file into memory; False if it is damaged: it is told, and left alone."""
    with ThreadPoolExecutor(_READERS) as readers:
        jobs = [readers.submit(packed.read, item, out) for item, out in places.items()]
    try:
        for job in jobs:
            job.result()
    except BundleError as error:
        _log.warning("a packed file is not used: %s", error)
        return False
    return True


def _mapped(prepared: Prepared, packed: PackedFile) -> NativeProgram:
    whole = packed.map()
    places = {item: whole[packed.offset(item):packed.offset(item) + item.bytes] for item in prepared.lowered.items}
    for bound in prepared.lowered.bounds():
        prepared.bind(bound, places[bound.item])
    facts = prepared.facts()
    return NativeProgram(prepared, "map", replace(facts, weight_bytes=0, mapped_bytes=facts.weight_bytes),
                         weights=_by_form(places))


def _by_form(places: Mapping[Item, Bytes]) -> dict[Form, Bytes]:
    return {item.form: place for item, place in places.items()}
