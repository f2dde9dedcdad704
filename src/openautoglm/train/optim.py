"""AdamW over one flat buffer per kind of parameter, with clipping and an average of the weights.

The model's parameters become views into the buffers, their gradients too, so that a step is a few passes over
long vectors, and a checkpoint a few tensors. AdamW is torch's fused one (Loshchilov and Hutter 2019).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from openautoglm.core.errors import TrainError
from openautoglm.train.settings import TrainSettings

_ALIGN = 16


class FlatAdamW:
    """Optimiser of all parameters that require a gradient.

    Args:
        model: its trainable parameters are re-pointed into flat buffers here; shapes and values stay.

    Raises:
        TrainError: nothing is trainable.
    """

    def __init__(self, model: nn.Module, settings: TrainSettings) -> None:
        self._settings = settings
        self.layout: dict[str, list[tuple[str, int, tuple[int, ...]]]] = {}
        self.flats: dict[str, nn.Parameter] = {}
        for key, members in _by_kind(model, settings).items():
            self._flatten(key, members)
        if not self.flats:
            raise TrainError("the model has no trainable parameter", remedy="unfreeze some, or add LoRA")
        decay = {True: settings.weight_decay, False: 0.0}
        groups = [{"params": [flat], "weight_decay": decay[key.startswith("decay")]}
                  for key, flat in self.flats.items()]
        self.adamw = torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=1e-8, fused=True)
        self.averages = ({key: flat.detach().clone() for key, flat in self.flats.items()}
                         if settings.ema_decay is not None else {})

    def _flatten(self, key: str, members: list[tuple[str, nn.Parameter]]) -> None:
        places, size = [], 0
        for name, parameter in members:
            places.append((name, size, tuple(parameter.shape)))
            size += -(-parameter.numel() // _ALIGN) * _ALIGN
        first = members[0][1]
        flat = nn.Parameter(torch.zeros(size, dtype=first.dtype, device=first.device))
        flat.grad = torch.zeros_like(flat)
        for (_, start, shape), (_, parameter) in zip(places, members, strict=True):
            span = slice(start, start + parameter.numel())
            flat.data[span].copy_(parameter.detach().reshape(-1))
            parameter.data = flat.data[span].view(shape)
            parameter.grad = flat.grad[span].view(shape)
        self.layout[key], self.flats[key] = places, flat

    def zero(self) -> None:
        """Set all gradients to zero, in place."""
        for flat in self.flats.values():
            assert flat.grad is not None
            flat.grad.zero_()

    def step(self, lr: float, decay: float | None) -> float:
        """Clip, update, average with `decay`; return the gradient's norm before clipping.

        Raises:
            TrainError: the gradient is not finite; the weights are as before.
        """
        gradients = [flat.grad for flat in self.flats.values() if flat.grad is not None]
        norms = [torch.linalg.vector_norm(gradient.float()) for gradient in gradients]
        norm = float(torch.linalg.vector_norm(torch.stack(norms)))
        if not norm < float("inf"):
            raise TrainError("the gradient is not finite",
                             remedy="lower lr, lengthen warmup_share, or use fp32")
        if self._settings.clip_norm is not None and norm > self._settings.clip_norm:
            for gradient in gradients:
                gradient.mul_(self._settings.clip_norm / norm)
        for group in self.adamw.param_groups:
            group["lr"] = lr
        self.adamw.step()
        if decay is not None:
            for key, average in self.averages.items():
                average.lerp_(self.flats[key].detach(), 1 - decay)
        return norm

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model holds the averaged weights, where there are any."""
        if not self.averages:
            yield
            return
        kept = {key: flat.detach().clone() for key, flat in self.flats.items()}
        self._put(self.averages)
        try:
            yield
        finally:
            self._put(kept)

    def weights(self) -> dict[str, Tensor]:
        """Return copies of the weights to be used (averaged where there is an average), by buffer."""
        return {key: flat.clone() for key, flat in (self.averages or self._raw()).items()}

    def set_weights(self, values: dict[str, Tensor]) -> None:
        """Put weights as returned by `weights` into the model."""
        self._put(values)

    def tensors(self) -> dict[str, Tensor]:
        """Return copies of everything a resumed run needs: weights, both moments, averages."""
        saved = {f"weights.{key}": flat for key, flat in self._raw().items()}
        for key, flat in self.flats.items():
            state = self.adamw.state.get(flat, {})
            saved |= {f"{name}.{key}": value for name, value in state.items() if isinstance(value, Tensor)}
        saved |= {f"average.{key}": value for key, value in self.averages.items()}
        return {name: value.detach().clone() for name, value in saved.items()}

    def load(self, saved: dict[str, Tensor]) -> None:
        """Go on from `tensors` of the same model and settings."""
        self._put({key: saved[f"weights.{key}"] for key in self.flats})
        for key, flat in self.flats.items():
            if f"step.{key}" not in saved:
                continue
            state = {name: saved[f"{name}.{key}"].clone() for name in ("step", "exp_avg", "exp_avg_sq")}
            self.adamw.state[flat] = {name: value.to(flat.device) for name, value in state.items()}
        for key, average in self.averages.items():
            average.copy_(saved[f"average.{key}"])

    def _raw(self) -> dict[str, Tensor]:
        return {key: flat.detach() for key, flat in self.flats.items()}

    def _put(self, values: dict[str, Tensor]) -> None:
        for key, flat in self.flats.items():
            flat.data.copy_(values[key])


def _by_kind(model: nn.Module, settings: TrainSettings) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Trainable parameters by whether they decay and by type; a tied weight is listed once."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    kinds: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim >= 2 and (settings.decay_embeddings or id(parameter) not in embeddings)
        dtype = str(parameter.dtype).removeprefix("torch.")
        kinds.setdefault(f"{'decay' if decays else 'plain'}-{dtype}", []).append((name, parameter))
    return kinds
