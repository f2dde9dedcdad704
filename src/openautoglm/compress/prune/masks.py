"""Masks of single weights: which stay, how they lie in a bundle, and the check that the others are zero.

``masks.safetensors`` holds for each matrix a U8 tensor [O, ceil(I / 8)] under the matrix's name: a bit for each weight,
the first column in the lowest bit, 1 where the weight stays. Metadata: ``format`` and ``version``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from openautoglm.core.errors import BundleError

MASKS_NAME = "masks.safetensors"
FORMAT, VERSION = "autoglm-masks", "1"
Masks = dict[str, Tensor]
_AGAIN = "prune again, or copy the bundle again"


def matrices(model: Any) -> Iterator[tuple[str, nn.Linear]]:
    """The matrices of the layers, by the names of their weights: what single weights are taken from."""
    for name, module in model.named_modules():
        if name.startswith("model.layers.") and isinstance(module, nn.Linear):
            yield f"{name}.weight", module


def write_masks(folder: Path, masks: Mapping[str, Tensor]) -> None:
    """Write ``masks.safetensors`` into the folder of an unfinished bundle."""
    packed = {name: torch.from_numpy(np.packbits(mask.cpu().numpy(), axis=1, bitorder="little"))
              for name, mask in masks.items()}
    save_file(packed, folder / MASKS_NAME, metadata={"format": FORMAT, "version": VERSION})


def read_masks(folder: Path, model: Any) -> Masks | None:
    """Return the masks of the bundle in `folder`, bool [O, I] by name, checked; None where it has none.

    Args:
        model: the bundle's model in transformers' class, on whose devices the masks are put.

    Raises:
        BundleError: the file is damaged, of another format or of other matrices, or a masked weight is not zero.
    """
    path = folder / MASKS_NAME
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            said = file.metadata() or {}
            packed = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except (OSError, SafetensorError) as error:
        raise BundleError(f"is no whole safetensors file: {error}", where=str(path), remedy=_AGAIN) from error
    if (said.get("format"), said.get("version")) != (FORMAT, VERSION):
        raise BundleError(f"holds {said.get('format')} {said.get('version')}, not {FORMAT} {VERSION}", where=str(path),
                          remedy="install a newer openautoglm, or prune again")
    weights = {name: matrix.weight for name, matrix in matrices(model)}
    masks = {}
    for name, bits in packed.items():
        rows, columns = weights[name].shape if name in weights else (0, 0)
        if bits.dtype != torch.uint8 or tuple(bits.shape) != (rows, -(-columns // 8)):
            raise BundleError(f"{name} is no mask of this model", where=str(path), remedy=_AGAIN)
        mask = np.unpackbits(bits.numpy(), axis=1, count=columns, bitorder="little").astype(bool)
        masks[name] = torch.from_numpy(mask).to(weights[name].device)
    check_masks(model, masks, str(path))
    return masks


def check_masks(model: Any, masks: Mapping[str, Tensor], where: str) -> None:
    """Raise BundleError when a weight that a mask takes out is not zero."""
    for name, matrix in matrices(model):
        if name in masks and bool(matrix.weight.detach()[~masks[name]].count_nonzero()):
            raise BundleError(f"{name} has weights where its mask has none", where=where,
                              remedy="a later step has lost the masks: take the bundle from before it")


def apply_masks(model: Any, masks: Mapping[str, Tensor]) -> None:
    """Set the weights to zero that the masks take out."""
    with torch.no_grad():
        for name, matrix in matrices(model):
            if name in masks:
                matrix.weight.masked_fill_(~masks[name], 0)
