"""Weights that were taken out stay out while the others learn."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from openautoglm.core.errors import TrainError


class Masked:
    """Keeps masked weights at zero, by themselves, in averages of the weights and in an optimiser's moments.

    Args:
        model: its masked weights become zero here.
        masks: which weights of a parameter stay, bool in its shape, by the parameter's name.

    Raises:
        TrainError: a mask is of no parameter of the model, or of another shape.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        parameters = dict(model.named_parameters())
        self._pairs: list[tuple[nn.Parameter, Tensor]] = []
        digest = hashlib.sha256()
        for name, mask in sorted(masks.items()):
            parameter = parameters.get(name)
            if parameter is None or parameter.shape != mask.shape:
                raise TrainError(f"the mask of {name} fits no parameter of the model", where="masks",
                                 remedy="give the masks of this very model")
            self._pairs.append((parameter, mask.to(parameter.device)))
            digest.update(name.encode() + mask.cpu().numpy().tobytes())
        self.identity: dict[str, Any] = {"masks": digest.hexdigest()[:16]} if masks else {}
        self.after_update()

    def before_update(self) -> None:
        """Set the gradients of masked weights to zero: they count in no norm and in no moment."""
        for parameter, mask in self._pairs:
            if parameter.grad is not None:
                parameter.grad.mul_(mask)

    def after_update(self) -> None:
        """Set masked weights to zero, whatever the optimiser did."""
        with torch.no_grad():
            for parameter, mask in self._pairs:
                parameter.mul_(mask)
