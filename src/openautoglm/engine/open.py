"""From a folder on disk to an engine: which target, which types, how large a cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from pydantic import Field, field_validator

from openautoglm.core import log
from openautoglm.core.errors import BundleError, ResourceError
from openautoglm.core.extras import installed
from openautoglm.core.hardware import probe
from openautoglm.core.settings import Settings
from openautoglm.engine.engine import Engine
from openautoglm.engine.settings import EngineSettings
from openautoglm.graph.recipe import Quantisation
from openautoglm.models.card import CARD_NAME, read_card
from openautoglm.models.checkpoint import read_spec, stored_type
from openautoglm.models.quantised_file import is_quantised
from openautoglm.models.spec import GlmSpec
from openautoglm.runtime.cache import CacheFormat, CacheShape
from openautoglm.runtime.load import load_hidden, load_program
from openautoglm.runtime.memory import resident_bytes
from openautoglm.runtime.native import native_module, why_not
from openautoglm.runtime.program import ComputeType, LoadMode, Plan

_log = log.get(__name__)
PAGE_SIZE = 16
CACHE_SHARE = 0.25
"""Of the memory that is free, what the cache takes at most where its size is not said."""
MOST_CACHE_BYTES = 4 << 30
NATIVE_HEADS = 16


class ProgramSettings(Settings):
    """How a model is loaded for generation. What is left out follows from the checkpoint and the machine.

    Attributes:
        target: ``native``, ``torch:cpu``, ``torch:cuda``; ``auto`` takes the native runtime, torch where that was not
            built.
        dtype: of matrices that are not quantised; as they are stored when None.
        quantise: linears in 8 or 4 bits, rounded when they are loaded.
        cache: of keys and values; when None, what the card recommends, else fp32 for fp32 weights and bf16 for others.
        cache_tokens: tokens that the cache holds; when None, `max_batch` sequences of full length, within a share of
            the free memory.
        cache_share: that share.
        max_rows: most token rows of a step.
        max_wanted: most rows of a step that give logits, so the most sequences that decode together.
        load: of the native target: copy weights into memory, map or stream a packed file, or decide by the memory.
        memory_limit: bytes for the process: what it holds already, weights, cache and activations.
        threads: of the native target; when None, as many as processors and the CPU quota allow, and in small steps a
            single one where that is measured to be faster.
        nice: added to the priority of the threads.
    """

    target: str = "auto"
    dtype: ComputeType | None = None
    quantise: Quantisation | None = None
    cache: CacheFormat | None = None
    cache_tokens: int | None = Field(default=None, gt=0)
    cache_share: float = Field(default=CACHE_SHARE, gt=0, le=1)
    max_rows: int = Field(default=512, gt=0)
    max_wanted: int = Field(default=64, gt=0)
    load: LoadMode = "auto"
    memory_limit: int | None = Field(default=None, gt=0)
    threads: int | None = Field(default=None, ge=1, le=1024)
    nice: int = Field(default=0, ge=0, le=19)

    @field_validator("target")
    @classmethod
    def _known(cls, target: str) -> str:
        if target != "auto" and target.partition(":")[0] not in ("native", "torch"):
            raise ValueError(f"no target {target!r}; there are auto, native, torch:cpu and torch:cuda")
        return target


def open_engine(folder: str | Path, program: ProgramSettings | None = None, engine: EngineSettings | None = None, *,
                stop_ids: Sequence[int] | None = None, vocab_size: int | None = None) -> Engine:
    """Load the checkpoint or bundle in `folder` and return an engine for it.

    Args:
        stop_ids: ids that end an answer; those of the checkpoint's configuration when None.
        vocab_size: ids from here on are padding and never generated.

    Raises:
        BundleError, SpecError, GraphError, ResourceError, MissingExtraError: as `load_program`.
    """
    path, settings = Path(folder), program or ProgramSettings()
    spec = read_spec(path)
    target = best_target(spec) if settings.target == "auto" else settings.target
    dtype = settings.dtype or stored_type(path)
    cache = cache_format(path, settings, dtype)
    pages = cache_pages(spec, settings, cache)
    loaded = load_program(
        path, target, dtype=dtype, quantise=settings.quantise, cache=cache, page_size=PAGE_SIZE, pages=pages,
        max_rows=settings.max_rows, max_wanted=settings.max_wanted, load=settings.load,
        memory_limit=settings.memory_limit, threads=settings.threads, nice=settings.nice)
    return Engine(loaded, engine, stop_ids=stop_ids, vocab_size=vocab_size, hidden=lambda: load_hidden(path, loaded))


def planned(spec: GlmSpec, settings: ProgramSettings, folder: Path | None = None, free: int | None = None) -> Plan:
    """The program that `open_engine` would load, for `openautoglm.runtime.load.weigh`.

    Args:
        folder: with a configuration at least; None: weights in fp32 that are nowhere yet.
        free: bytes that are free; None: those of this machine.

    Raises:
        BundleError, ResourceError: as `open_engine`.
    """
    dtype = settings.dtype or (stored_type(folder) if folder is not None else "fp32")
    cache = cache_format(folder, settings, dtype)
    pages = cache_pages(spec, settings, cache, free)
    shape = CacheShape(spec.layers, spec.kv_heads, spec.head_dim, PAGE_SIZE, pages, cache)
    target = best_target(spec) if settings.target == "auto" else settings.target
    return Plan(spec, target, dtype, shape, settings.max_rows, settings.max_wanted, settings.quantise, settings.load, 0,
                settings.threads)


def cache_format(folder: Path | None, settings: ProgramSettings, dtype: ComputeType) -> CacheFormat:
    """The form of keys and values: as asked for, as recommended, else fp32 for weights in fp32 and bf16 for others."""
    exact = dtype == "fp32" and settings.quantise is None and not (folder is not None and is_quantised(folder))
    recommended = None if folder is None else recommended_cache(folder)
    return settings.cache or recommended or ("fp32" if exact else "bf16")


def recommended_cache(folder: Path) -> CacheFormat | None:
    """The form of keys and values that the card of a bundle recommends; None where it does not.

    Raises:
        BundleError: the card is damaged, or recommends what there is not.
    """
    if not (folder / CARD_NAME).is_file():
        return None
    engine = read_card(folder).recipe.get("engine") or {}
    asked = engine.get("cache") if isinstance(engine, dict) else engine
    if asked not in (None, *get_args(CacheFormat)):
        raise BundleError(f"recommends a cache of {asked!r}", where=f"{folder / CARD_NAME}: recipe.engine",
                          remedy=f"use one of {', '.join(get_args(CacheFormat))}")
    found: CacheFormat | None = asked
    return found


def best_target(spec: GlmSpec) -> str:
    """A GPU's torch where there is one, ``native`` where it was built and fits, else torch on the CPU, with a notice.

    Raises:
        ResourceError: there is neither.
    """
    if installed("torch") and probe().gpus:
        import torch

        if torch.cuda.is_available():
            return "torch:cuda"
    missing = why_not_native(spec)
    if not missing:
        return "native"
    if not installed("torch"):
        raise ResourceError(f"there is nothing to run a model with: {missing}, and torch is not installed",
                            remedy="install g++ and the package again, or openautoglm[train] for torch")
    _log.warning("%s; torch serves in its place, slower", missing)
    return "torch:cpu"


def why_not_native(spec: GlmSpec) -> str:
    """Why the native runtime cannot run a model, one sentence; empty where it can."""
    if native_module() is None:
        return why_not()
    if spec.head_dim % NATIVE_HEADS:
        return f"the native runtime takes heads of a multiple of {NATIVE_HEADS}, this model has {spec.head_dim}"
    return ""


def pack(folder: str | Path, program: ProgramSettings | None = None) -> Path:
    """Write the packed file that `open_engine` finds with the same settings, so that it converts no weights.

    Raises:
        BundleError, SpecError, GraphError, ResourceError: as `openautoglm.runtime.native_load.pack_checkpoint`.
    """
    from openautoglm.runtime.native_load import pack_checkpoint

    path, settings = Path(folder), program or ProgramSettings()
    return pack_checkpoint(path, settings.quantise, settings.dtype or stored_type(path), threads=settings.threads)


def cache_pages(spec: GlmSpec, settings: ProgramSettings, cache: CacheFormat, free: int | None = None) -> int:
    """Pages of the cache: as many tokens as asked for, or what sequences of full length need and memory allows.

    Args:
        free: bytes that are free; None: those of this machine.
    """
    if settings.cache_tokens is not None:
        return -(-settings.cache_tokens // PAGE_SIZE)
    page = CacheShape(spec.layers, spec.kv_heads, spec.head_dim, PAGE_SIZE, 1, cache).page_bytes
    if free is None:
        free = probe().available_bytes
    if settings.memory_limit is not None:
        free = min(free, max(settings.memory_limit - resident_bytes(), 0))
    longest = -(-spec.max_positions // PAGE_SIZE)
    affordable = int(min(free * settings.cache_share, MOST_CACHE_BYTES)) // page
    return max(1, min(settings.max_wanted * longest, max(affordable, min(longest, 4 * affordable))))
