"""Checkpoints of named shapes with random weights, made once, for what needs no trained ones."""

from __future__ import annotations

import shutil
from pathlib import Path

from openautoglm.models.presets import preset
from peers.make_checkpoint import make_model, make_tokenizer
from peers.shapes import SHAPES, Shape


def shape_of(name: str) -> Shape:
    """The shape of the peers' table (S, E), or that of a preset of the package, with a head of its own.

    Raises:
        SpecError: there is no such name.
    """
    if name in SHAPES:
        return SHAPES[name]
    spec = preset(name)
    return Shape(name, hidden=spec.hidden_size, layers=spec.layers, heads=spec.heads, kv_heads=spec.kv_heads,
                 head_dim=spec.head_dim, ffn=spec.ffn_size, vocab=spec.vocab_size, decode_tokens=0, inner_repeats=0,
                 int4_group=32)


def random_checkpoint(name: str, work: Path) -> Path:
    """The folder of the shape's checkpoint below `work`, where `benchmarks/engine.py --work` has it too; made where it
    is missing. A broken-off one never takes its name."""
    shape, folder = shape_of(name), work / "models" / name / "checkpoint"
    if folder.is_dir():
        return folder
    unfinished = folder.with_name("unfinished-checkpoint")
    shutil.rmtree(unfinished, ignore_errors=True)
    print(f"making {folder}", flush=True)
    make_model(shape, unfinished)
    make_tokenizer(shape, unfinished)
    return unfinished.rename(folder)
