"""The first engine: transformers' classes, a static KV cache, prompts of like length together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from openautoglm.core.errors import GenerationError
from openautoglm.engine.beams import beam_search
from openautoglm.engine.decode import decode
from openautoglm.engine.decoder import Decoder
from openautoglm.engine.generate import Candidate
from openautoglm.engine.sampling import Sampling


class TransformersGenerator:
    """Generates with a ``GlmForCausalLM`` or ``Glm4ForCausalLM``, on the device and in the type it has.

    A training model may be given; its mode is put back after each call.

    Args:
        model: the model, with sdpa attention.
        stop_ids: ids that end an answer.
        vocab_size: ids from here on are padding of the embedding and never generated; all when None.
        max_rows: sequences that decode together at most.
        cache_bytes: bound on the KV cache of a batch; at least one prompt's rows are always taken.
    """

    def __init__(
        self,
        model: Any,
        *,
        stop_ids: Sequence[int],
        vocab_size: int | None = None,
        max_rows: int = 128,
        cache_bytes: int = 2**31,
    ) -> None:
        self._model = model
        self._stop_ids = tuple(stop_ids)
        self._vocab_size = min(vocab_size or model.config.vocab_size, model.config.vocab_size)
        self._max_rows, self._cache_bytes = max_rows, cache_bytes

    def generate(self, prompts: Sequence[list[int]], settings: Sampling) -> list[list[Candidate]]:
        """Return `settings.n` candidates for each prompt, in the order of the prompts.

        A prompt near the model's last position gets fewer than `max_new_tokens`; its candidates are then not
        `finished`.

        Raises:
            GenerationError: a prompt is empty, holds foreign ids, or leaves no room for an answer.
        """
        self._check(prompts)
        found: dict[int, list[Candidate]] = {}
        with _evaluating(self._model), torch.inference_mode():
            for batch in self._batches(prompts, settings):
                results = self._run([prompts[number] for number in batch], settings)
                found.update(zip(batch, results, strict=True))
        return [found[number] for number in range(len(prompts))]

    def _run(self, prompts: Sequence[list[int]], settings: Sampling) -> list[list[Candidate]]:
        limit = self._limit(prompts[-1], settings)
        copies = max(settings.num_beams, settings.n)
        decoder = Decoder(self._model, prompts, room=limit, copies=copies, vocab_size=self._vocab_size)
        stops = torch.tensor(self._stop_ids, dtype=torch.long, device=self._model.device)
        method = beam_search if settings.num_beams > 1 else decode
        return method(decoder, prompts, stops, limit, settings)

    def _limit(self, prompt: Sequence[int], settings: Sampling) -> int:
        return int(min(settings.max_new_tokens, self._model.config.max_position_embeddings - len(prompt)))

    def _batches(self, prompts: Sequence[list[int]], settings: Sampling) -> Iterator[list[int]]:
        """Yield numbers of prompts that decode together: like lengths, one limit, within rows and bytes."""
        config = self._model.config
        width = torch.empty((), dtype=self._model.dtype).element_size()
        token_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * width
        copies = max(settings.num_beams, settings.n)
        batch: list[int] = []
        for number in sorted(range(len(prompts)), key=lambda number: len(prompts[number])):
            limit = self._limit(prompts[number], settings)
            rows = (len(batch) + 1) * copies
            full = (
                rows > self._max_rows
                or rows * (len(prompts[number]) + limit) * token_bytes > self._cache_bytes
            )
            if batch and (full or limit != self._limit(prompts[batch[0]], settings)):
                yield batch
                batch = []
            batch.append(number)
        if batch:
            yield batch

    def _check(self, prompts: Sequence[list[int]]) -> None:
        positions, vocab = self._model.config.max_position_embeddings, self._model.config.vocab_size
        for number, prompt in enumerate(prompts):
            where = f"prompt {number}"
            if not prompt:
                raise GenerationError("is empty", where=where, remedy="give at least one id")
            if len(prompt) >= positions:
                raise GenerationError(
                    f"has {len(prompt)} tokens, the model {positions} positions",
                    where=where,
                    remedy="shorten the input",
                )
            if min(prompt) < 0 or max(prompt) >= vocab:
                raise GenerationError(
                    f"holds ids outside the vocabulary of {vocab}",
                    where=where,
                    remedy="tokenise with the model's own tokenizer",
                )


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
