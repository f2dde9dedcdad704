"""Loss per target token on held-out data."""

from __future__ import annotations

from typing import Any, Literal

import torch

from openautoglm.data.pack import in_order
from openautoglm.data.tokens import TokenStore
from openautoglm.train import precision
from openautoglm.train.forward import loss_sums, to_inputs

_BATCH_TOKENS = 4096


def valid_loss(model: Any, store: TokenStore, *, rows: int | None = None,
               number_format: Literal["bf16", "fp32"] = "fp32") -> float:
    """Negative log likelihood per target token in nats, over up to `rows` evenly spaced examples.

    The model should be in evaluation mode; it is left as it is.
    """
    device = next(model.parameters()).device
    total, targets = 0.0, 0
    with torch.inference_mode(), precision.autocast(number_format, device):
        for batch in in_order(store, batch_tokens=_BATCH_TOKENS, rows=rows):
            total += float(loss_sums(model, to_inputs(batch, device))[1])
            targets += len(batch.labels)
    return total / targets
