"""How a weight of the graph comes from the tensors of a checkpoint: data, evaluated by whoever loads.

Rules that fuse weights write down what is to be done; nothing is computed before a program is loaded, layer by layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Format = Literal["fp32", "bf16", "int8", "int4"]


@dataclass(frozen=True)
class Tensor:
    """A tensor of the checkpoint, by its name."""

    name: str


@dataclass(frozen=True)
class Rows:
    """Some rows of another source: `start` up to, not including, `stop`."""

    of: Source
    start: int
    stop: int


@dataclass(frozen=True)
class Concat:
    """Sources one under the other (axis 0)."""

    parts: tuple[Source, ...]


@dataclass(frozen=True)
class Scaled:
    """Another source, each column multiplied by a vector (axis 1 of a matrix), or all of it by a number."""

    of: Source
    by: Source | float


@dataclass(frozen=True)
class Quantised:
    """A matrix in another format.

    Attributes:
        group: neighbouring input columns that share a scale; 0 for whole rows.
        symmetric: without a zero point.
    """

    of: Source
    format: Format
    group: int = 32
    symmetric: bool = True


Source = Tensor | Rows | Concat | Scaled | Quantised


def tensors(source: Source) -> tuple[str, ...]:
    """The names of the checkpoint's tensors that a source reads, in order, each once."""
    if isinstance(source, Tensor):
        return (source.name,)
    if isinstance(source, Concat):
        return tuple(dict.fromkeys(name for part in source.parts for name in tensors(part)))
    found = tensors(source.of)
    if isinstance(source, Scaled) and not isinstance(source.by, float):
        found += tensors(source.by)
    return tuple(dict.fromkeys(found))
