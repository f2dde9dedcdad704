"""The outputs of frozen lower layers, kept on disk: later passes begin above them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from openautoglm.core.errors import TrainError
from openautoglm.data.pack import Batch
from openautoglm.data.tokens import TokenStore
from openautoglm.train import precision
from openautoglm.train.forward import Start, lower_hidden, to_inputs, walkable
from openautoglm.train.freeze import FreezeSettings, bare, depth
from openautoglm.train.rows import InputRows, RowFiles

NAME = "frozen-states"


class FrozenStates:
    """Hidden states of every token of a store at the boundary of the frozen layers, fp32.

    The first pass over them is made here, before training; it costs as much as those layers cost in one pass.

    Args:
        model: frozen already.
        folder: of the run; the files are in its ``frozen-states``.

    Raises:
        TrainError: dropout acts in the frozen layers, or they are not frozen as a whole.
        ResourceError: the files would be larger than their bound or the free disk.
    """

    def __init__(self, model: Any, store: TokenStore, settings: FreezeSettings, folder: Path | None,
                 number_format: Literal["bf16", "fp32"]) -> None:
        base = bare(model)
        self.layers = min(settings.layers, depth(base))
        self._device = next(base.parameters()).device
        _refuse(base, self.layers, settings, folder)
        assert folder is not None
        self._rows = InputRows(store)
        identity = {"weights": _hash(base, self.layers), "store": store.fingerprint, "layers": self.layers,
                    "precision": number_format}
        self._files = RowFiles(folder / NAME, identity, {"hidden": (base.config.hidden_size, np.float32)},
                               self._rows.count, limit_bytes=settings.cache_gib * 2**30,
                               where="train.freeze.cache_gib")

        def compute(batch: Batch) -> Mapping[str, NDArray[Any]]:
            with precision.autocast(number_format, self._device):
                hidden = lower_hidden(base, to_inputs(batch, self._device), self.layers)
            return {"hidden": hidden.float().cpu().numpy()}

        training = base.training
        base.eval()
        self._files.fill(store, compute, lambda batch: np.where(batch.tokens < 0, -1, self._rows(batch.tokens)),
                         "frozen layers")
        base.train(training)

    def start(self, model: Any, batch: Batch) -> Start | None:
        """Where the walk over a batch begins; None once one of the layers has thawed."""
        if depth(bare(model)) < self.layers:
            return None
        hidden = self._files.read("hidden", self._rows(batch.tokens))
        return Start(self.layers, torch.from_numpy(hidden).to(self._device))


def _refuse(base: Any, layers: int, settings: FreezeSettings, folder: Path | None) -> None:
    if folder is None:
        raise TrainError("the cache of frozen layers needs a folder", where="train.freeze.cache",
                         remedy="give training a folder, or switch the cache off")
    if not walkable(base) or not layers:
        raise TrainError("the lowest layers are not frozen as a whole", where="train.freeze.cache",
                         remedy="freeze layers and embeddings, or switch the cache off")
    parts = [base.model.embed_tokens, *base.model.layers[:layers]]
    for part in parts:
        for module in part.modules():
            random = (isinstance(module, nn.Dropout) and module.p > 0) or getattr(module, "attention_dropout", 0.0) > 0
            if random or module._forward_hooks:
                raise TrainError("dropout acts in the frozen layers, so their outputs differ from pass to pass",
                                 where="train.freeze.cache",
                                 remedy="set model.dropout and model.attention_dropout to 0, or switch the cache off")


def _hash(base: Any, layers: int) -> str:
    digest = hashlib.sha256()
    for part in (base.model.embed_tokens, *base.model.layers[:layers]):
        for parameter in part.parameters():
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
