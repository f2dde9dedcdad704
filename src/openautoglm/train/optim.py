"""AdamW over one flat buffer per kind of parameter, with clipping and an average of the weights.

The model's parameters become views into the buffers, their gradients too, so that a step is a few passes over
long vectors, and a checkpoint a few tensors. What AdamW remembers is in `moments`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from openautoglm.core.errors import TrainError
from openautoglm.train.moments import moments_of
from openautoglm.train.settings import TrainSettings

_ALIGN = 16


class FlatAdamW:
    """Optimiser of all parameters that require a gradient.

    Args:
        model: its trainable parameters are re-pointed into flat buffers here; shapes and values stay. Parameters that
            learn later are taken up by `thaw`; till then they have neither gradient nor state.
        more: a module that learns with the model, such as projections of features.
        scratch: folder for states that are mapped to files (``offload``).

    Raises:
        TrainError: nothing is trainable.
    """

    def __init__(self, model: nn.Module, settings: TrainSettings, *, more: nn.Module | None = None,
                 scratch: Path | None = None) -> None:
        self._settings = settings
        self._model, self._more = model, more
        self.layout: dict[str, list[tuple[str, int, tuple[int, ...]]]] = {}
        self.flats: dict[str, nn.Parameter] = {}
        self.averages: dict[str, Tensor] = {}
        self._held: set[int] = set()
        self.moments = moments_of(settings, scratch)
        self.thaw()
        if not self.flats:
            raise TrainError("the model has no trainable parameter", remedy="unfreeze some, or add LoRA")

    def thaw(self, stage: int = 0) -> None:
        """Take up every parameter that requires a gradient and has none yet; `stage` names the new buffers."""
        mark = f"@{stage}" if stage else ""
        found = {f"{key}{mark}": members for key, members in _by_kind(self._model, self._settings, self._held).items()}
        if self._more is not None:
            found |= {f"more-{key}{mark}": members
                      for key, members in _by_kind(self._more, self._settings, self._held).items()}
        for key, members in found.items():
            self._flatten(key, members)
            self.moments.add(key, self.flats[key], self._settings.weight_decay if "decay" in key else 0.0)
            if self._settings.ema_decay is not None:
                self.averages[key] = self.flats[key].detach().clone()

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
            self._held.add(id(parameter))
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
        self.moments.step(lr)
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

    def weights(self, *, copy: bool = True) -> dict[str, Tensor]:
        """Return the weights to be used (averaged where there is an average), by buffer; copies, or themselves.

        With frozen parameters that may thaw later, those are with them, by name.
        """
        found = (self.averages or self._raw()) | {f"frozen.{name}": value.detach()
                                                  for name, value in self._frozen().items()}
        return {name: value.clone() for name, value in found.items()} if copy else found

    def set_weights(self, values: dict[str, Tensor]) -> None:
        """Put weights as returned by `weights` into the model, also after more has thawed."""
        self._put({key: value for key, value in values.items() if key in self.flats})
        named = dict(self._model.named_parameters())
        for key, value in values.items():
            if key.startswith("frozen."):
                named[key.removeprefix("frozen.")].data.copy_(value)

    def tensors(self, *, copy: bool = True) -> dict[str, Tensor]:
        """Return everything a resumed run needs: weights, both moments, averages; copies, or the tensors themselves."""
        saved = {f"weights.{key}": flat for key, flat in self._raw().items()}
        saved |= self.moments.tensors()
        saved |= {f"average.{key}": value for key, value in self.averages.items()}
        return {name: value.detach().clone() if copy else value.detach() for name, value in saved.items()}

    def load(self, saved: dict[str, Tensor]) -> None:
        """Go on from `tensors` of the same model and settings, thawed as far."""
        self._put({key: saved[f"weights.{key}"] for key in self.flats})
        self.moments.load(saved)
        for key, average in self.averages.items():
            average.copy_(saved[f"average.{key}"])

    def _frozen(self) -> dict[str, nn.Parameter]:
        """What may thaw later, by name."""
        freeze = self._settings.freeze
        if freeze is None or freeze.unfreeze is None:
            return {}
        return {name: parameter for name, parameter in self._model.named_parameters()
                if id(parameter) not in self._held}

    def _raw(self) -> dict[str, Tensor]:
        return {key: flat.detach() for key, flat in self.flats.items()}

    def _put(self, values: dict[str, Tensor]) -> None:
        for key, value in values.items():
            self.flats[key].data.copy_(value)


def _by_kind(model: nn.Module, settings: TrainSettings, held: set[int]) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Trainable parameters, but those `held`, by whether they decay and by type; a tied weight is listed once."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    kinds: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or id(parameter) in held:
            continue
        decays = parameter.ndim >= 2 and (settings.decay_embeddings or id(parameter) not in embeddings)
        dtype = str(parameter.dtype).removeprefix("torch.")
        kinds.setdefault(f"{'decay' if decays else 'plain'}-{dtype}", []).append((name, parameter))
    return kinds
