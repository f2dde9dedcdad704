"""One batch of sequences on a transformers model: prefill once, then a token a row and step.

Prompts of different lengths are padded on the left; padding is masked and positions count from each prompt's
first token, so that a row gives what it gives alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from openautoglm.engine.cache import KvCache


class Decoder:
    """Rows that decode together. Shapes: R rows, T tokens, V ids.

    Args:
        model: a ``GlmForCausalLM`` or ``Glm4ForCausalLM`` in evaluation mode, with sdpa attention.
        prompts: ids, none empty.
        room: tokens that may be fed after the prompts.
        copies: rows for each prompt, side by side; the prompt is computed once.
        vocab_size: ids above are never given a logit.

    Attributes:
        logits_RV: of the next token of each row, fp32.
    """

    def __init__(
        self, model: Any, prompts: Sequence[list[int]], *, room: int, copies: int, vocab_size: int
    ) -> None:
        self._model, self._vocab_size = model, vocab_size
        self._device = model.device
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        self.prompt_tokens = width = int(lengths.max())
        ids_BT = torch.zeros((len(prompts), width), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids_BT[row, width - len(prompt) :] = torch.tensor(prompt)
        self._padding = width - lengths.to(self._device)
        self._cache = KvCache(model.config.num_hidden_layers, width + room)
        bias = torch.zeros((len(prompts), 1, 1, width + room), dtype=model.dtype, device=self._device)
        places = torch.arange(width + room, device=self._device)
        self._bias = bias.masked_fill_((places < self._padding[:, None])[:, None, None], -torch.inf)
        positions = (places[:width] - self._padding[:, None]).clamp_min(0)
        self.logits_RV = self._forward(ids_BT.to(self._device), positions, self._prefill_bias(width))
        if copies > 1:
            self.select(torch.arange(len(prompts), device=self._device).repeat_interleave(copies))

    def _prefill_bias(self, width: int) -> torch.Tensor:
        """Causal, without padding; a padding row sees itself, lest its softmax be empty."""
        later = torch.ones((width, width), dtype=torch.bool, device=self._device).triu(1)
        bias = self._bias[..., :width].expand(-1, 1, width, -1).masked_fill(later, -torch.inf)
        diagonal = torch.eye(width, dtype=torch.bool, device=self._device)
        return bias.masked_fill_(diagonal, 0.0)

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=bias,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1, : self._vocab_size].float()

    def step(self, tokens_R: torch.Tensor) -> None:
        """Feed one token a row; `logits_RV` are then those after it."""
        positions = self._cache.length - self._padding
        bias = self._bias[..., : self._cache.length + 1]
        self.logits_RV = self._forward(tokens_R[:, None], positions[:, None], bias)

    def select(self, rows: torch.Tensor) -> None:
        """Go on with `rows` only, in that order."""
        self._cache.select(rows)
        self._padding, self._bias = self._padding[rows], self._bias[rows]
        self.logits_RV = self.logits_RV[rows]

    def reorder(self, rows: torch.Tensor) -> None:
        """Let each row go on from another row of the same prompt."""
        self._cache.reorder(rows, self.prompt_tokens)
