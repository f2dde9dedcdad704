"""Drives the training loop: device, progress, validation by generated text."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openautoglm.core.progress import duration, progress
from openautoglm.data.tokens import TokenStore
from openautoglm.models.spec import GlmSpec
from openautoglm.train.events import StepEvent
from openautoglm.train.settings import TrainSettings

if TYPE_CHECKING:
    from torch import Tensor

    from openautoglm.train.goal import Goal

Hook = Callable[[Any, int], Mapping[str, float]]


def device() -> str:
    """Where models train and generate: the first GPU, else the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def fresh_model(spec: GlmSpec, *, seed: int, dropout: float, attention_dropout: float) -> Any:
    """A new model of a spec, on the training device."""
    from openautoglm.models import hf

    return hf.build(spec, seed=seed, dropout=dropout, attention_dropout=attention_dropout).to(device())


def drive(model: Any, train_store: TokenStore, valid_store: TokenStore | None, settings: TrainSettings,
          folder: Path | None, *, label: str, on_validate: Hook | None = None,
          goal: Goal | None = None, masks: Mapping[str, Tensor] | None = None) -> Generator[StepEvent]:
    """Train with a progress bar (real tokens/s, loss, time left), passing the events on."""
    from openautoglm.train.loop import train

    total = train_store.tokens * settings.passes if settings.passes else settings.tokens
    told = 0
    events = train(model, train_store, valid_store, settings, folder, on_validate=on_validate, goal=goal,
                   masks=masks)
    with progress(total, label, "tokens") as bar:
        try:
            for event in events:
                shown: dict[str, float | str] = {"loss": event.loss, "left": duration(event.left_s)}
                if event.valid_loss is not None:
                    shown["valid"] = event.valid_loss
                    shown |= dict(event.metrics)
                if not told and event.step > 1:  # the steps before were those of an earlier sitting
                    bar.resume(told := event.tokens)
                bar.advance(event.tokens - told, **shown)
                told = event.tokens
                yield event
        finally:
            events.close()  # type: ignore[attr-defined]
