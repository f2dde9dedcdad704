"""Low-rank adapters (LoRA, Hu et al. 2021) by peft: wrap a model, train it, merge."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from openautoglm.core.errors import TrainError
from openautoglm.core.extras import require
from openautoglm.core.settings import Settings

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_EVERYWHERE = (*_ATTENTION, "gate_up_proj", "down_proj")


class LoraSettings(Settings):
    """Which matrices get an adapter, and of what size.

    Attributes:
        rank: inner width of an adapter.
        alpha: its output is scaled by ``alpha / rank``.
        dropout: on the adapter's input.
        targets: ``attention`` projections, ``all`` linear layers of the body, or module names.
    """

    rank: int = Field(default=8, gt=0)
    alpha: float = Field(default=16.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Literal["attention", "all"] | tuple[str, ...] = "all"


def add_lora(model: Any, settings: LoraSettings) -> Any:
    """Return the model wrapped by peft: only adapters are trainable. `loop.train` takes it as it is.

    Raises:
        MissingExtraError: peft is not installed.
        TrainError: no module has one of the names.
    """
    peft = require("peft", "train")
    names = {"attention": _ATTENTION, "all": _EVERYWHERE}.get(str(settings.targets), settings.targets)
    config = peft.LoraConfig(r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout,
                             target_modules=list(names), task_type="CAUSAL_LM")
    try:
        with _renamed():
            return peft.get_peft_model(model, config)
    except ValueError as error:
        raise TrainError(
            f"LoRA cannot be added: {error}", where="lora.targets",
            remedy=f"name linear layers of the model, for example {', '.join(_EVERYWHERE)}") from error


def load_lora(model: Any, folder: Path) -> Any:
    """Return the model wrapped with adapters that peft wrote into a folder.

    Raises:
        MissingExtraError: peft is not installed.
        TrainError: there are none, they are damaged, or they are not this model's.
    """
    if not (folder / "adapter_config.json").is_file():
        raise TrainError("holds no adapters", where=str(folder),
                         remedy="give the folder that peft wrote, with adapter_config.json")
    peft = require("peft", "train")
    try:
        with _renamed():
            return peft.PeftModel.from_pretrained(model, str(folder))
    except (ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
        raise TrainError(f"the adapters do not fit the model: {error}", where=str(folder),
                         remedy="give adapters that were trained on this model") from error


@contextmanager
def _renamed() -> Iterator[None]:
    """Let peft ask transformers 5 by a name that it renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def merge_lora(model: Any) -> Any:
    """Return the plain model with the adapters added into its weights; a model without adapters as it is."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
