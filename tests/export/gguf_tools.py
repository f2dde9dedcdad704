"""Reads a GGUF file back with the library's own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

gguf = pytest.importorskip("gguf", reason="gguf is not installed: pip install 'openautoglm[export]' -c constraints.txt")


class Found:
    """A file: its keys with plain values, and its tensors by name."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self.keys: dict[str, Any] = {key: field.contents() for key, field in reader.fields.items()}
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}

    @property
    def types(self) -> dict[str, str]:
        """Element types by tensor."""
        return {name: tensor.tensor_type.name.lower() for name, tensor in self._tensors.items()}

    def values(self, name: str) -> np.ndarray:
        """A tensor in fp32, [rows, columns]."""
        tensor = self._tensors[name]
        return np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32)
