"""Quantised checkpoints of tiny random models, made of plain ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from openautoglm.models.quantised_bundle import write_quantised_bundle
from openautoglm.models.quantised_file import open_quantised
from openautoglm.runtime.quantised import QuantisedMatrix, quantise
from openautoglm.runtime.tensors import Checkpoint

Choose = Callable[[str], tuple[Any, int, bool] | None]
"""Bits, group and whether symmetric, of a matrix by its name; None leaves it."""
TABLES = ("model.embed_tokens.weight", "lm_head.weight")


def alike(bits: Any = 8, group: int = 32, symmetric: bool = True, *, tables: Any = (8, 32, True)) -> Choose:
    """One form for all linears of layers, and one (or None) for embedding and head."""
    return lambda name: tables if name in TABLES else (bits, group, symmetric)


def write_quantised(folder: Path, parent: Path, choose: Choose) -> Path:
    """Round the matrices of a plain checkpoint to nearest, in the forms that `choose` says."""
    from openautoglm.models.checkpoint import read_spec
    from openautoglm.models.weight_shapes import weight_shapes

    checkpoint = Checkpoint(parent)

    def tensors() -> Any:
        for name, shape in weight_shapes(read_spec(parent)).items():
            value = checkpoint.entry(name).read()
            form = choose(name) if len(shape) == 2 else None
            yield name, value if form is None else quantise(value, form[0], form[1], symmetric=form[2])

    return write_quantised_bundle(folder, parent, tensors())


def write_dequantised(folder: Path, quantised: Path) -> Path:
    """The plain checkpoint whose weights have the values of a quantised one's."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    (folder / "config.json").write_bytes((quantised / "config.json").read_bytes())
    file = open_quantised(quantised)
    values = {name: file.read(name) for name in file.names}
    save_file({name: torch.from_numpy((value.dequantise() if isinstance(value, QuantisedMatrix) else value).copy())
               for name, value in values.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
