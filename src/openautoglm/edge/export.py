"""``autoglm edge``: a bundle becomes a folder with a program, packed weights, tables and a manifest."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from openautoglm.core.errors import BundleError, ResourceError
from openautoglm.core.progress import progress
from openautoglm.edge.compile import check_wanted, compile_program, runs_here
from openautoglm.edge.manifest import NAME, TOKENIZER, WEIGHTS, Facts, Record, manifest
from openautoglm.edge.record import RECORDER
from openautoglm.edge.tables import tables_of
from openautoglm.graph.build import build
from openautoglm.graph.recipe import Quantisation
from openautoglm.graph.rewrite import rewrite
from openautoglm.graph.rules.registry import rules_for
from openautoglm.models.bundle import Bundle
from openautoglm.models.checkpoint import stored_type
from openautoglm.models.quantised_file import is_quantised
from openautoglm.runtime.cache import CacheFormat, CacheShape
from openautoglm.runtime.lowered import Lowered
from openautoglm.runtime.native_lower import lower_graph
from openautoglm.runtime.native_program import extension
from openautoglm.runtime.packed_files import open_written, write_packed
from openautoglm.runtime.program import ComputeType, Plan
from openautoglm.runtime.tensors import Checkpoint
from openautoglm.runtime.weights import check_weights

PROGRAM = "autoglm-edge"
PAGE_SIZE = 16
_MAX_TOKENS = 256


@dataclass(frozen=True)
class Wanted:
    """How a bundle is exported.

    Attributes:
        quantise: linears in 8 or 4 bits; None: as they are stored, quantised ones too.
        dtype: of what is not quantised; as it is stored when None.
        cache: of keys and values; fp32 for fp32 weights and else bf16 when None.
        rows: most tokens of a prompt that are worked at together; more are faster and take more memory.
        without: features that are left out of the program.
        compiler: its command; None: one that is found.
        program: a program that was compiled before, to be copied; None: it is compiled now.
    """

    quantise: Quantisation | None = None
    dtype: ComputeType | None = None
    cache: CacheFormat | None = None
    rows: int = 64
    without: Collection[str] = ()
    compiler: str | None = None
    program: Path | None = None


def export_edge(bundle: Bundle, folder: Path, wanted: Wanted, *, name: str, record: Record) -> Path:
    """Write the folder of an edge model: it is whole or absent.

    Args:
        name: what the model calls itself.
        record: how the columns of a JSON object become a prompt.

    Raises:
        BundleError: the folder is there already, or the bundle's weights cannot be read.
        GraphError, TokenizerError: the edge program cannot do what the model does.
        ResourceError: no compiler, or no extension to pack the weights with.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BundleError("is there already, and not empty", where=str(folder), remedy="give another folder with -o")
    if wanted.program is None:
        check_wanted(wanted.without, wanted.compiler)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write_model(bundle, work, wanted, name, record)
        _write_program(work / PROGRAM, wanted)
        work.chmod(0o755)
        if folder.is_dir():
            folder.rmdir()
        os.replace(work, folder)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return folder


def _write_model(bundle: Bundle, folder: Path, wanted: Wanted, name: str, record: Record) -> None:
    native = extension()
    with progress(3, "writing the edge model", "files") as bar:
        (folder / TOKENIZER).write_bytes(tables_of(bundle.path / "tokenizer.json"))
        bar.advance()
        plan, lowered, checkpoint = _lowered(bundle, wanted)
        team = native.Team(len(os.sched_getaffinity(0)), "", [], 0)
        write_packed(folder / WEIGHTS, lowered.items, checkpoint, plan, native, team)
        bar.advance()
        decoding = bundle.card.recipe.get("decoding") or {}
        facts = Facts(name, bundle.template.frame(bundle.tokenizer), bundle.tokenizer.vocab_size,
                      int(decoding.get("max_new_tokens", _MAX_TOKENS)), record)
        text = manifest(facts, plan, lowered, open_written(folder / WEIGHTS))
        (folder / NAME).write_text(text, encoding="utf-8")
        bar.advance()


def _lowered(bundle: Bundle, wanted: Wanted) -> tuple[Plan, Lowered, Checkpoint]:
    """The program that the engine would run, for one sequence, as the calls that make it."""
    spec = bundle.spec
    dtype = wanted.dtype or stored_type(bundle.path)
    exact = dtype == "fp32" and wanted.quantise is None and not is_quantised(bundle.path)
    cache = wanted.cache or ("fp32" if exact else "bf16")
    shape = CacheShape(spec.layers, spec.kv_heads, spec.head_dim, PAGE_SIZE, 1, cache)
    plan = Plan(spec, "native", dtype, shape, min(wanted.rows, spec.max_positions), 1, wanted.quantise)
    checkpoint, graph = Checkpoint(bundle.path), build(spec)
    rewrite(graph, rules_for("native", wanted.quantise, stored=checkpoint.forms))
    check_weights(graph, checkpoint)
    return plan, lower_graph(graph, plan, checkpoint, RECORDER, None, None), checkpoint


def _write_program(path: Path, wanted: Wanted) -> None:
    if wanted.program is None:
        compile_program(path, without=wanted.without, compiler=wanted.compiler)
        return
    if not wanted.program.is_file():
        raise ResourceError("does not exist", where=str(wanted.program), remedy="leave --program out to compile one")
    shutil.copyfile(wanted.program, path)
    path.chmod(0o755)


def check_program(folder: Path) -> bool:
    """Whether the exported program starts on this machine."""
    return runs_here(folder / PROGRAM)

