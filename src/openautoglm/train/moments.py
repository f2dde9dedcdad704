"""What AdamW remembers of the gradients: in fp32, or in eight bits a value; in memory, or mapped to files.

The eight bits are ours: blocks of `BLOCK` values share their greatest one, as in Dettmers et al. 2022
(arXiv 2110.02861), but a code is a root of the value in place of a table's entry, so that coding is plain
arithmetic: ``mean = sign * (code / 127)^2 * greatest``, ``square = (code / 255)^4 * greatest``. Codes are rounded
up or down by chance (a fixed table of chances, moved on with every step), for a running average that is rounded
to the nearest code does not move at all where it moves slowly. A square that is not zero never becomes zero: its
root divides.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from openautoglm.train.settings import TrainSettings

BLOCK = 256
_CHUNK = 1024 * BLOCK
_SLACK = 65_536
_EPS = 1e-8


class Moments(Protocol):
    """The two moments of every flat buffer, and the step that uses them."""

    def add(self, key: str, flat: nn.Parameter, decay: float) -> None:
        """Take a buffer up; its moments are zero."""

    def step(self, lr: float) -> None:
        """Update all buffers from their gradients."""

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that a resumed run needs, by name and buffer; not copies."""

    def load(self, saved: dict[str, Tensor]) -> None:
        """Go on from `tensors`."""


def moments_of(settings: TrainSettings, scratch: Path | None) -> Moments:
    """The moments that the settings ask for; with `scratch` they are mapped to files in that folder."""
    room = Room(scratch if settings.offload else None)
    return EightBit(settings, room) if settings.optimiser_state == "8bit" else Full(settings, room)


class Room:
    """Where moments lie: in memory, or in files that the system may write out when memory is short."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def zeros(self, name: str, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A tensor [size] of zeros; in a file where there is a folder and the device is the CPU."""
        if self.folder is None or device.type != "cpu":
            return torch.zeros(size, dtype=dtype, device=device)
        path = self.folder / f"{name}.bin"
        path.unlink(missing_ok=True)  # a file of a killed run; its name alone is used again
        return torch.from_file(str(path), shared=True, size=size, dtype=dtype)  # a new file is zero


class Full:
    """Both moments in fp32: torch's fused AdamW (Loshchilov and Hutter 2019)."""

    _NAMES = ("step", "exp_avg", "exp_avg_sq")

    def __init__(self, settings: TrainSettings, room: Room) -> None:
        self._settings, self._room = settings, room
        self._flats: dict[str, nn.Parameter] = {}
        self.adamw: torch.optim.AdamW | None = None

    def add(self, key: str, flat: nn.Parameter, decay: float) -> None:
        """Take a buffer up."""
        group = {"params": [flat], "weight_decay": decay}
        if self.adamw is None:
            self.adamw = torch.optim.AdamW([group], lr=self._settings.lr, betas=self._settings.betas, eps=_EPS,
                                           fused=True)
        else:
            self.adamw.add_param_group(group)
        self._flats[key] = flat
        both = {name: self._room.zeros(f"{name}.{key}", flat.numel(), flat.dtype, flat.device)
                for name in self._NAMES[1:]}  # before the first step, whose activations leave no hole large enough
        self.adamw.state[flat] = {"step": torch.zeros((), device=flat.device), **both}

    def step(self, lr: float) -> None:
        """Update all buffers."""
        assert self.adamw is not None
        for group in self.adamw.param_groups:
            group["lr"] = lr
        self.adamw.step()

    def tensors(self) -> dict[str, Tensor]:
        """Both moments and the count of steps of each buffer that was ever updated."""
        assert self.adamw is not None
        return {f"{name}.{key}": value for key, flat in self._flats.items()
                for name, value in self.adamw.state.get(flat, {}).items() if isinstance(value, Tensor)}

    def load(self, saved: dict[str, Tensor]) -> None:
        """Go on from `tensors`."""
        assert self.adamw is not None
        for key, flat in self._flats.items():
            if f"step.{key}" not in saved:
                continue
            state = {name: saved[f"{name}.{key}"] for name in self._NAMES}
            held = self.adamw.state.get(flat)
            if held:
                for name, value in state.items():
                    held[name].copy_(value)
            else:
                self.adamw.state[flat] = {name: value.clone().to(flat.device) for name, value in state.items()}


class EightBit:
    """Both moments in eight bits a value and a scale a block."""

    def __init__(self, settings: TrainSettings, room: Room) -> None:
        self._settings, self._room = settings, room
        self._flats: dict[str, tuple[nn.Parameter, float]] = {}
        self._state: dict[str, dict[str, Tensor]] = {}
        chance = torch.Generator().manual_seed(0)
        self._chances = torch.rand(_CHUNK + _SLACK, generator=chance)

    def add(self, key: str, flat: nn.Parameter, decay: float) -> None:
        """Take a buffer up."""
        blocks = -(-flat.numel() // BLOCK)

        def zeros(name: str, size: int, dtype: torch.dtype) -> Tensor:
            return self._room.zeros(f"{name}.{key}", size, dtype, flat.device)

        self._chances = self._chances.to(flat.device)
        self._flats[key] = flat, decay
        self._state[key] = {
            "step": torch.zeros(1, dtype=torch.int64),
            "mean_codes": zeros("mean_codes", blocks * BLOCK, torch.int8),
            "mean_scales": zeros("mean_scales", blocks, torch.float32),
            "square_codes": zeros("square_codes", blocks * BLOCK, torch.uint8),
            "square_scales": zeros("square_scales", blocks, torch.float32)}

    def step(self, lr: float) -> None:
        """Update all buffers, chunk by chunk."""
        for key, (flat, decay) in self._flats.items():
            state = self._state[key]
            state["step"] += 1
            step = int(state["step"])
            for number, start in enumerate(range(0, flat.numel(), _CHUNK)):
                self._chunk(flat, state, start, lr, decay, step, (step * 7_919 + number * 104_729) % _SLACK)

    def tensors(self) -> dict[str, Tensor]:
        """Codes, scales and the count of steps of each buffer."""
        return {f"{name}.{key}": value for key, state in self._state.items() for name, value in state.items()}

    def load(self, saved: dict[str, Tensor]) -> None:
        """Go on from `tensors`."""
        for key, state in self._state.items():
            for name, value in state.items():
                value.copy_(saved[f"{name}.{key}"])

    @torch.no_grad()
    def _chunk(self, flat: nn.Parameter, state: dict[str, Tensor], start: int, lr: float, decay: float, step: int,
               offset: int) -> None:
        span = slice(start, min(start + _CHUNK, flat.numel()))
        blocks = slice(start // BLOCK, -(-span.stop // BLOCK))
        whole = slice(start, blocks.stop * BLOCK)
        assert flat.grad is not None
        weight, gradient = flat.data[span], flat.grad[span].float()
        if whole.stop > span.stop:  # the last block is short
            gradient = nn.functional.pad(gradient, (0, whole.stop - span.stop))
        beta1, beta2 = self._settings.betas
        mean = decode_mean(state["mean_codes"][whole], state["mean_scales"][blocks])
        mean.lerp_(gradient, 1 - beta1)
        square = decode_square(state["square_codes"][whole], state["square_scales"][blocks])
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        weight.mul_(1 - lr * decay)
        under = square.sqrt().div_(math.sqrt(1 - beta2**step)).add_(_EPS)
        change = torch.div(mean, under, out=under)[: len(weight)]
        weight.add_(change.to(weight.dtype), alpha=-lr / (1 - beta1**step))
        chances = self._chances[offset : offset + len(mean)]
        encode_mean(mean, chances, state["mean_codes"][whole], state["mean_scales"][blocks])
        encode_square(square, chances.flip(0), state["square_codes"][whole], state["square_scales"][blocks])


def decode_mean(codes: Tensor, scales: Tensor) -> Tensor:
    """Values of int8 codes, fp32; lengths are whole blocks, `scales` holds one value a block."""
    x = codes.float().div_(127)
    return (x * x.abs()).view(-1, BLOCK).mul_(scales[:, None]).view(-1)


def decode_square(codes: Tensor, scales: Tensor) -> Tensor:
    """Values of uint8 codes, fp32."""
    return codes.float().div_(255).square_().square_().view(-1, BLOCK).mul_(scales[:, None]).view(-1)


def encode_mean(values: Tensor, chances: Tensor, codes: Tensor, scales: Tensor) -> None:
    """Write codes and scales of `values`; a code is rounded up with the chance of its fraction."""
    size = values.abs()
    torch.amax(size.view(-1, BLOCK), 1, out=scales)
    size = size.view(-1, BLOCK).div_(scales.clamp_min(1e-38)[:, None]).view(-1)
    size.sqrt_().mul_(127).add_(chances).floor_().clamp_(max=127)
    codes.copy_(size.copysign_(values))


def encode_square(values: Tensor, chances: Tensor, codes: Tensor, scales: Tensor) -> None:
    """Write codes and scales of `values`, which are not negative; what is above zero gets code 1 at least."""
    torch.amax(values.view(-1, BLOCK), 1, out=scales)
    root = (values.view(-1, BLOCK) / scales.clamp_min(1e-38)[:, None]).view(-1)
    root.sqrt_().sqrt_().mul_(255).add_(chances).floor_().clamp_(max=255)
    codes.copy_(torch.maximum(root, (values > 0).float()))
