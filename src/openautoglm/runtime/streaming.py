"""Weights larger than memory: a step goes over the model stage by stage, while a thread reads what comes next.

A stage is some calls of the program and the panels that they multiply by, at most `STAGE_BYTES` of them. As many of the
first stages as memory allows stay there; the others pass through two buffers, always in the same order, so that reading
goes on during and between steps. Tables of which a step takes a few rows are mapped. Checksums are checked in passing,
when a weight is read for the first time.
"""

from __future__ import annotations

import os
import queue
import threading
import weakref
import zlib
from dataclasses import dataclass, field, replace
from typing import Any

from openautoglm.core.errors import ResourceError
from openautoglm.core.log import get
from openautoglm.graph.ir import Graph
from openautoglm.runtime.checksums import Checksums
from openautoglm.runtime.memory import block_bytes, block_within, free_bytes
from openautoglm.runtime.native_program import NativeProgram, Prepared
from openautoglm.runtime.packed_files import PackedFile, read_at
from openautoglm.runtime.packing import LINE, Bytes, Item
from openautoglm.runtime.program import Plan
from openautoglm.runtime.tensors import Checkpoint

_log = get(__name__)
STAGE_BYTES = 32 << 20
BUFFERS = 2


@dataclass
class Stage:
    """Calls [first, last) of a program and what they need of the file.

    Attributes:
        weights: for each weight its number in the program, its place in the file, its bytes, its place in memory.
        memory: its own, if it stays; else None.
    """

    first: int
    last: int
    weights: list[tuple[int, int, int, int]] = field(default_factory=list)
    bytes: int = 0
    memory: Bytes | None = None

    def add(self, number: int, offset: int, size: int) -> None:
        """Add a weight."""
        self.weights.append((number, offset, size, self.bytes))
        self.bytes += -(-size // LINE) * LINE


class Streamer:
    """A program whose weights pass through memory."""

    def __init__(self, graph: Graph, plan: Plan, checkpoint: Checkpoint, packed: PackedFile) -> None:
        self.plan, self.packed = plan, packed
        budget = plan.stream_bytes or (BUFFERS + 1) * STAGE_BYTES
        each = block_within(max(1, min(STAGE_BYTES, budget // (BUFFERS + 1))))
        self.prepared = Prepared(graph, plan, checkpoint, most_bytes=each)
        self.native = self.prepared.lowered.native
        small, large = self._rows()
        self.sums = Checksums(packed, self.prepared.lowered.items)
        self.stages = _stages(self.prepared, packed, each)
        widest = block_bytes(max(stage.bytes for stage in self.stages))
        passes = small + sum(block_bytes(stage.bytes) for stage in self.stages) > budget
        room = budget - small - (BUFFERS * widest if passes else 0)
        if room < 0:
            raise ResourceError(f"{budget} bytes are too few for streamed weights, at least {small + BUFFERS * widest} "
                                "are needed", where=plan.target, remedy="raise memory_limit, or compress the model")
        kept = self._keep(room)
        passing = [stage for stage in self.stages if stage.memory is None]
        self.reader = _Reader(packed, passing, self._buffers(widest) if passing else [], self.sums)
        weakref.finalize(self, self.reader.stop)
        held = small + kept + (BUFFERS * widest if passing else 0)
        self.facts = replace(self.prepared.facts(), weight_bytes=held, mapped_bytes=large)

    def program(self) -> NativeProgram:
        """The program."""
        return NativeProgram(self.prepared, "stream", self.facts, self.step)

    def step(self, *arrays: Any) -> None:
        """Run a step; arguments as of the extension's."""
        self.native.begin(*arrays)
        for stage in self.stages:
            if stage.memory is not None:
                self.native.run(stage.first, stage.last)
                continue
            buffer = self.reader.take()
            for number, _, size, at in stage.weights:
                self.native.bind_weight(number, buffer[at:at + size])
            self.native.run(stage.first, stage.last)
            self.reader.give_back(buffer)

    def _rows(self) -> tuple[int, int]:
        """Bind what is not packed: vectors are read, tables mapped; return the bytes of both."""
        whole, numbers = self.packed.map(), {bound.item: bound.number for bound in self.prepared.lowered.bounds()
                                             if bound.item.kind == "rows"}
        vectors = [item for item in numbers if item.rows == 1]
        block = self.prepared.extension.Block(sum(_lines(item) for item in vectors)).array
        at = large = 0
        for item, number in numbers.items():
            start = self.packed.offset(item)
            weight = whole[start:start + item.bytes]
            if item.rows == 1:
                self.packed.check(item.name, zlib.crc32(weight.data))
                block[at:at + item.bytes] = weight
                weight, at = block[at:at + item.bytes], at + _lines(item)
            else:
                large += item.bytes
            self.native.bind_tensor(number, weight)
        return at, large

    def _keep(self, room: int) -> int:
        """Read the first stages that fit into memory for good; return their bytes."""
        kept = 0
        handle = os.open(self.packed.path, os.O_RDONLY)
        try:
            for stage in self.stages:
                if kept + block_bytes(stage.bytes) > room:
                    break
                memory: Bytes = self.prepared.extension.Block(max(stage.bytes, 1)).array
                _read(handle, stage, memory, self.sums)
                for number, _, size, at in stage.weights:
                    self.native.bind_weight(number, memory[at:at + size])
                stage.memory, kept = memory, kept + block_bytes(stage.bytes)
        finally:
            os.close(handle)
        return kept

    def _buffers(self, size: int) -> list[Bytes]:
        return [self.prepared.extension.Block(size).array for _ in range(BUFFERS)]


class _Reader:
    """A thread that reads stages in a circle into buffers that come back; it knows nothing of the program."""

    def __init__(self, packed: PackedFile, stages: list[Stage], buffers: list[Bytes], sums: Checksums) -> None:
        self._packed, self._stages, self._sums = packed, stages, sums
        self._free: queue.SimpleQueue[Bytes | None] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[Bytes | BaseException] = queue.SimpleQueue()
        self._fault: BaseException | None = None
        self._forget = packed.path.stat().st_size > free_bytes()
        for buffer in buffers:
            self._free.put(buffer)
        self._thread = threading.Thread(target=self._work, name="autoglm-reader", daemon=True)
        if stages:
            self._thread.start()

    def take(self) -> Bytes:
        """Wait for the next stage."""
        if self._fault is None:
            ready = self._ready.get()
            if not isinstance(ready, BaseException):
                return ready
            self._fault = ready
        raise self._fault

    def give_back(self, buffer: Bytes) -> None:
        """The calls of a stage have run."""
        self._free.put(buffer)

    def stop(self) -> None:
        """Let the thread end and wait for it, a while at most: a disk may hang."""
        self._free.put(None)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)

    def _work(self) -> None:
        try:
            handle = os.open(self._packed.path, os.O_RDONLY)
            try:
                self._circle(handle)
            finally:
                os.close(handle)
        except Exception as error:  # whatever it is, the step that waits must hear of it
            _log.error("reading weights failed: %s", error)
            self._ready.put(error)

    def _circle(self, handle: int) -> None:
        number = 0
        while (buffer := self._free.get()) is not None:
            stage, following = self._stages[number], self._stages[(number + 1) % len(self._stages)]
            _advise(handle, following, os.POSIX_FADV_WILLNEED)
            _read(handle, stage, buffer, self._sums)
            if self._forget:
                _advise(handle, stage, os.POSIX_FADV_DONTNEED)
            self._ready.put(buffer)
            number = (number + 1) % len(self._stages)


def _stages(prepared: Prepared, packed: PackedFile, most_bytes: int) -> list[Stage]:
    """Neighbouring calls whose weights take at most `most_bytes`, or one call that takes more."""
    stages = [Stage(0, 0)]
    for call, bounds in enumerate(prepared.lowered.calls):
        pieces = [bound for bound in bounds if bound.item.kind == "packed"]
        if stages[-1].weights and stages[-1].bytes + sum(bound.bytes for bound in pieces) > most_bytes:
            stages.append(Stage(call, call))
        for bound in pieces:
            stages[-1].add(bound.number, packed.offset(bound.item) + bound.first, bound.bytes)
        stages[-1].last = call + 1
    return stages


def _read(handle: int, stage: Stage, memory: Bytes, sums: Checksums) -> None:
    for _, offset, size, at in stage.weights:
        piece = memory[at:at + size]
        read_at(handle, offset, piece, sums.packed.path)
        sums.add(offset, piece)


def _advise(handle: int, stage: Stage, advice: int) -> None:
    for _, offset, size, _ in stage.weights:
        os.posix_fadvise(handle, offset, size, advice)


def _lines(item: Item) -> int:
    return -(-item.bytes // LINE) * LINE
