"""Programs: a graph made ready for a target, and the checks of a step that all targets share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from openautoglm.core.errors import GraphError, ResourceError
from openautoglm.graph.recipe import Quantisation
from openautoglm.models.spec import GlmSpec
from openautoglm.runtime.cache import CacheShape
from openautoglm.runtime.layout import Int32, Layout

Float32 = NDArray[np.float32]
ComputeType = Literal["fp32", "bf16"]
LoadMode = Literal["auto", "copy", "map", "stream"]
"""``copy`` into memory, ``map`` the packed file read-only, ``stream`` layer after layer of it, or ``auto``."""


@dataclass(frozen=True)
class Plan:
    """What a program shall be.

    Attributes:
        target: ``torch:cpu``, ``torch:cuda``, ``native`` ...; what follows the colon is the target's own affair.
        dtype: of products and of what flows between operators; norms are in fp32 always.
        cache: the pool of pages.
        max_rows: most token rows of a step.
        max_wanted: most rows of a step whose logits are asked for.
        quantise: how linears were quantised when the graph was rewritten; None: not at all.
        load: how weights come into memory; native only.
        stream_bytes: bytes that streamed weights may take in memory; `load` is ``stream`` then.
        threads: that compute, native only; None: as many as processors and the CPU quota allow, and in small steps a
            single one where that is measured to be faster.
        cpus: processors of the threads but the first, which is the caller's own; empty: the system decides.
        nice: priority of these threads, 0 (usual) to 19 (last).
    """

    spec: GlmSpec
    target: str
    dtype: ComputeType
    cache: CacheShape
    max_rows: int
    max_wanted: int
    quantise: Quantisation | None = None
    load: LoadMode = "auto"
    stream_bytes: int = 0
    threads: int | None = None
    cpus: tuple[int, ...] = ()
    nice: int = 0

    @property
    def family(self) -> str:
        """The target's kernels: what stands before the colon."""
        return self.target.partition(":")[0]

    @property
    def device(self) -> str:
        """Where it runs: what stands behind the colon."""
        return self.target.partition(":")[2] or "cpu"


@dataclass(frozen=True)
class Facts:
    """What a program takes, in bytes.

    Attributes:
        weight_bytes, cache_bytes: exactly; of streamed weights what lies in memory at a time.
        activation_bytes: what values and work space take in the largest step, logits too; of torch an estimate.
        mapped_bytes: weights that stay in a mapped file: the system may drop and read them again, so they do not count.
        base_bytes: what the process holds beside it: interpreter, libraries, what the caller keeps, as measured before
            loading, and 8 MiB for stacks, allocator and rounding. 0 on a GPU, whose memory it does not take.
    """

    weight_bytes: int
    cache_bytes: int
    activation_bytes: int
    mapped_bytes: int = 0
    base_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """All that the program must have in memory."""
        return self.weight_bytes + self.cache_bytes + self.activation_bytes

    @property
    def process_bytes(self) -> int:
        """All that the process must have in memory: what a memory limit is compared with."""
        return self.base_bytes + self.total_bytes


class Program(Protocol):
    """A graph made ready to step. Not safe for use by several threads at once."""

    @property
    def plan(self) -> Plan:
        """What the program is."""

    @property
    def facts(self) -> Facts:
        """What the program takes."""

    def step(self, ids: Int32, positions: Int32, layout: Layout, wanted: Int32) -> Float32:
        """Run the flat batch once: write its keys and values into the cache, return logits.

        Args:
            ids: [rows] token ids.
            positions: [rows] for the rotary positions; those of the layout, as a rule.
            layout: whose rows these are, and where their cache lies.
            wanted: [wanted] numbers of the rows whose logits are asked for, in any order; may be empty.

        Returns:
            Logits, fp32 [wanted, vocab_size].

        Raises:
            GraphError: the arrays do not fit the layout, or ids, positions or wanted lie outside their ranges.
            ResourceError: more rows than the program was made for.
        """

    def copy_pages(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy whole pages of the cache, all layers, e.g. before a sequence writes to a shared page.

        Raises:
            ResourceError: a page lies outside the pool, or the lists differ in length.
        """


class Rows(NamedTuple):
    """The checked arrays of a step, int32 and contiguous: ids and positions [rows], wanted [wanted]."""

    ids: Int32
    positions: Int32
    wanted: Int32


def check_step(plan: Plan, ids: Int32, positions: Int32, layout: Layout, wanted: Int32) -> Rows:
    """Check the arguments of `Program.step`.

    Raises:
        GraphError, ResourceError: as there.
    """
    if layout.page_size != plan.cache.page_size or int(layout.page_table.max()) >= plan.cache.pages:
        raise GraphError("the layout was made for another cache",
                         remedy=f"lay out pages of {plan.cache.page_size} tokens, numbers below {plan.cache.pages}")
    if layout.rows > plan.max_rows or len(wanted) > plan.max_wanted:
        raise ResourceError(f"{layout.rows} rows and logits of {len(wanted)} are more than the program's "
                            f"{plan.max_rows} and {plan.max_wanted}", remedy="load it with larger max_rows, max_wanted")
    return Rows(_numbers("ids", ids, layout.rows, plan.spec.vocab_size),
                _numbers("positions", positions, layout.rows, plan.spec.max_positions),
                _numbers("wanted", wanted, None, layout.rows))


def check_pages(plan: Plan, sources: Sequence[int], targets: Sequence[int]) -> None:
    """Check the arguments of `Program.copy_pages`.

    Raises:
        ResourceError: as there.
    """
    if len(sources) != len(targets) or not all(0 <= page < plan.cache.pages for page in (*sources, *targets)):
        raise ResourceError(f"pages are copied one to one, with numbers below {plan.cache.pages}")


def _numbers(name: str, given: Int32, length: int | None, below: int) -> Int32:
    numbers = np.ascontiguousarray(given, np.int32)
    if numbers.ndim != 1 or (length is not None and len(numbers) != length):
        raise GraphError(f"{name} have shape {numbers.shape}, the step has {length} rows", where="step")
    if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < below:
        raise GraphError(f"{name} lie between {numbers.min()} and {numbers.max()}, allowed is 0 to {below - 1}",
                         where="step")
    return numbers
