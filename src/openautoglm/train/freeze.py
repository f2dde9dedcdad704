"""Freezing: parts of a model that do not learn, for good or until their turn comes.

A frozen part has no gradient and no optimiser state, and the frozen layers at the bottom run without autograd, so
that nothing of them is kept. Their outputs can be kept on disk instead (`train.states`).

Gradual unfreezing goes from the top layer down (Howard and Ruder 2018, ULMFiT, arXiv 1801.06146).
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from openautoglm.core.errors import TrainError
from openautoglm.core.settings import Settings

if TYPE_CHECKING:
    from torch import nn


class UnfreezeSettings(Settings):
    """When frozen layers begin to learn: the topmost first, then one after another, embeddings last.

    Attributes:
        begin: share of the run after which the topmost frozen layer learns.
        end: share of the run after which everything learns, but for what `patterns` name.
    """

    begin: float = Field(default=0.25, ge=0, lt=1)
    end: float = Field(default=0.75, gt=0, le=1)

    @model_validator(mode="after")
    def _in_order(self) -> UnfreezeSettings:
        if self.end < self.begin:
            raise ValueError("end must not lie before begin")
        return self


class FreezeSettings(Settings):
    """What does not learn. It takes neither gradients nor optimiser state.

    Attributes:
        layers: so many layers, from the lowest.
        embeddings: the token embedding, and with it a head that shares its weights. Left out: frozen where layers are,
            for below a part that learns everything must be kept for the backward pass.
        patterns: weights whose names match, for example ``*.mlp.*`` or ``model.layers.0.*``; these never thaw.
        unfreeze: let the layers learn later, one after another.
        cache: keep the outputs of the frozen lower layers on disk, so that they are computed once. Needs dropout off
            there.
        cache_gib: bound of that file; a larger one is refused.
    """

    layers: int = Field(default=0, ge=0)
    embeddings: bool | None = None
    patterns: tuple[str, ...] = ()
    unfreeze: UnfreezeSettings | None = None
    cache: bool = False
    cache_gib: float = Field(default=8.0, gt=0)

    @model_validator(mode="after")
    def _fits_together(self) -> FreezeSettings:
        if not (self.layers or self.embeddings or self.patterns):
            raise ValueError("nothing is frozen: give layers, embeddings or patterns, or leave the section out")
        if self.cache and (not self.layers or self.embeddings is False):
            raise ValueError("cache keeps outputs of frozen lower layers: it needs layers, and frozen embeddings")
        if self.unfreeze is not None and not (self.layers or self.embeddings):
            raise ValueError("unfreeze needs layers or embeddings to be frozen first")
        return self

    @property
    def freezes_embeddings(self) -> bool:
        """Whether embeddings are frozen at the start."""
        return self.layers > 0 if self.embeddings is None else self.embeddings


class Freezer:
    """Freezes a model, and thaws it stage by stage.

    Args:
        model: transformers' class, perhaps wrapped by peft; `requires_grad` of its parameters is set here.

    Raises:
        TrainError: more layers than there are, or a pattern that no weight matches.
    """

    def __init__(self, model: Any, settings: FreezeSettings | None) -> None:
        self.settings, self.stage = settings, 0
        self._stages: list[list[nn.Parameter]] = []
        if settings is not None:
            self._freeze(model, settings)

    def due(self, progress: float) -> int:
        """How many stages have thawed at `progress` (0 to 1) through the run."""
        if self.settings is None or self.settings.unfreeze is None:
            return 0
        begin, end = self.settings.unfreeze.begin, self.settings.unfreeze.end
        last = max(1, len(self._stages) - 1)
        return sum(progress + 1e-9 >= begin + (end - begin) * number / last for number in range(len(self._stages)))

    def thaw(self, stage: int) -> None:
        """Let the parts of the next stage, number `stage` (from 1), learn."""
        assert stage == self.stage + 1
        for parameter in self._stages[stage - 1]:
            parameter.requires_grad_(True)
        self.stage = stage

    def _freeze(self, model: Any, settings: FreezeSettings) -> None:
        body = bare(model).model
        if settings.layers > len(body.layers):
            raise TrainError(f"the model has {len(body.layers)} layers, not {settings.layers}",
                             where="train.freeze.layers", remedy="freeze fewer")
        for pattern in settings.patterns:
            matching = [parameter for name, parameter in model.named_parameters() if fnmatchcase(name, pattern)]
            if not matching:
                names = [name for name, _ in model.named_parameters()]
                raise TrainError(f"no weight matches {pattern!r}", where="train.freeze.patterns",
                                 remedy=f"names look like {names[0]}, {names[len(names) // 2]}; * stands for anything")
            for parameter in matching:
                parameter.requires_grad_(False)
        parts = [body.layers[number] for number in reversed(range(settings.layers))]
        parts += [body.embed_tokens] if settings.freezes_embeddings else []
        for part in parts:
            held = [parameter for parameter in part.parameters() if parameter.requires_grad]
            for parameter in held:
                parameter.requires_grad_(False)
            self._stages.append(held)


def depth(model: Any) -> int:
    """How many layers at the bottom are frozen altogether, the embedding too; 0 where it is not."""
    body = model.model
    if any(parameter.requires_grad for parameter in body.embed_tokens.parameters()):
        return 0
    for number, layer in enumerate(body.layers):
        if any(parameter.requires_grad for parameter in layer.parameters()):
            return number
    return len(body.layers)


def bare(model: Any) -> Any:
    """The causal language model itself, also where peft wraps it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
