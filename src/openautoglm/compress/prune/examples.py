"""Examples in padded batches, for measuring what matters in a model.

Letters in names: B rows of a batch, L tokens of a row, N real tokens of a batch, T tokens that carry loss.

Rows are padded on the right, so a causal model needs no mask: what comes later changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from openautoglm.core.errors import CompressError
from openautoglm.data.tokens import TokenStore
from openautoglm.models.spec import GlmSpec

_BATCH_TOKENS = 2048


@dataclass(frozen=True)
class ExampleBatch:
    """Rows of examples.

    Attributes:
        ids: input ids [B, L]; 0 where padded.
        real: what is no padding [B, L].
        needed: what predicts a target token [B, L].
        labels: these tokens, row by row [T].
    """

    ids: Tensor
    real: Tensor
    needed: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> ExampleBatch:
        """The same on a device."""
        return ExampleBatch(self.ids.to(device), self.real.to(device), self.needed.to(device), self.labels.to(device))


def example_batches(store: TokenStore, spec: GlmSpec, rows: int) -> list[ExampleBatch]:
    """Up to `rows` examples, evenly spaced over the store, rows of like length together.

    Raises:
        CompressError: the store holds ids that the model does not know.
    """
    if len(store) == 0 or int(np.max(store.ids)) >= spec.vocab_size:
        raise CompressError(f"the examples are not of this model, whose vocabulary has {spec.vocab_size} ids",
                            where="data", remedy="give tokens made with the model's own tokenizer")
    chosen = np.linspace(0, len(store) - 1, min(rows, len(store))).round().astype(np.int64)
    chosen = chosen[np.argsort(store.lengths[chosen], kind="stable")]
    batches: list[ExampleBatch] = []
    some: list[int] = []
    for index in map(int, chosen):
        if some and (len(some) + 1) * int(store.lengths[index]) > _BATCH_TOKENS:
            batches.append(_batch(store, some))
            some = []
        some.append(index)
    return [*batches, _batch(store, some)]


def loss_sum(model: Any, batch: ExampleBatch, **given: Any) -> Tensor:
    """The negative log likelihood of all target tokens, in nats; `given` stands for the ids in the model's body."""
    hidden = model.model(**(given or {"input_ids": batch.ids}), use_cache=False).last_hidden_state
    return F.cross_entropy(model.lm_head(hidden[batch.needed]).float(), batch.labels, reduction="sum")


def _batch(store: TokenStore, chosen: Sequence[int]) -> ExampleBatch:
    width = max(int(store.lengths[index]) for index in chosen) - 1  # the last token predicts nothing
    ids = np.zeros((len(chosen), width), np.int64)
    real, needed = np.zeros(ids.shape, bool), np.zeros(ids.shape, bool)
    labels = []
    for row, index in enumerate(chosen):
        tokens, prompt = store[index], int(store.prompts[index])
        ids[row, : len(tokens) - 1] = tokens[:-1]
        real[row, : len(tokens) - 1] = True
        needed[row, prompt - 1 : len(tokens) - 1] = True
        labels.append(tokens[prompt:].astype(np.int64))
    return ExampleBatch(torch.from_numpy(ids), torch.from_numpy(real), torch.from_numpy(needed),
                        torch.from_numpy(np.concatenate(labels)))
