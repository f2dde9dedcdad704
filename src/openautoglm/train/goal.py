"""What a training step minimises: the one seam for losses beyond cross entropy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from openautoglm.data.pack import Batch
from openautoglm.data.tokens import TokenStore
from openautoglm.train.forward import Halves, Inputs, Start, loss_sums


class Goal(Protocol):
    """From a batch to two sums over its target tokens."""

    @property
    def module(self) -> nn.Module | None:
        """What learns with the model and is left out of its bundle."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What a resumed run must have in common, JSON-like."""

    def prepare(self, store: TokenStore, folder: Path | None, number_format: Literal["bf16", "fp32"]) -> None:
        """Do what is done once before the first step; a killed call goes on."""

    def __call__(self, model: Any, batch: Batch, inputs: Inputs, *, recompute: bool, halves: Halves | None,
                 start: Start | None) -> tuple[Tensor, Tensor]:
        """Return the objective (differentiable) and the plain negative log likelihood, fp32, in nats."""


class CrossEntropy:
    """The usual goal: the targets' cross entropy, with label smoothing."""

    module: nn.Module | None = None

    def __init__(self, smoothing: float = 0.0) -> None:
        self._smoothing = smoothing
        self.identity: Mapping[str, Any] = {}

    def prepare(self, store: TokenStore, folder: Path | None, number_format: Literal["bf16", "fp32"]) -> None:
        """Nothing."""

    def __call__(self, model: Any, batch: Batch, inputs: Inputs, *, recompute: bool, halves: Halves | None,
                 start: Start | None) -> tuple[Tensor, Tensor]:
        """Return both sums."""
        return loss_sums(model, inputs, smoothing=self._smoothing, recompute=recompute, halves=halves, start=start)
