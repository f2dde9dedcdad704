"""llama.cpp through llama-cpp-python's low-level batches: one decode call for each step of all requests.

Settings: `flash` attention, `unified` cache of all sequences. The file is copied into memory, never mapped, so that
llama.cpp can repack it for the processor.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import llama_cpp
import numpy as np

from peers.runner import Job, main
from peers.shapes import Shape

SEQUENCE_TOKENS, PROMPT_ROWS = 1024, 512


@llama_cpp.llama_log_callback
def _quiet(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    """llama.cpp logs every tensor; its errors come back as codes."""


class Batch:
    """A `llama_batch` whose arrays are filled through numpy."""

    def __init__(self, rows: int) -> None:
        self.raw = llama_cpp.llama_batch_init(rows, 0, 1)
        self.token, self.position, self.count, self.wanted = (
            np.ctypeslib.as_array(field, shape=(rows,))
            for field in (self.raw.token, self.raw.pos, self.raw.n_seq_id, self.raw.logits))
        self.count[:] = 1

    def fill(self, tokens: np.ndarray, positions: np.ndarray, sequences: Sequence[int], wanted: np.ndarray) -> None:
        """Set the rows."""
        rows = self.raw.n_tokens = len(tokens)
        self.token[:rows], self.position[:rows], self.wanted[:rows] = tokens, positions, wanted
        for row, sequence in enumerate(sequences):
            self.raw.seq_id[row][0] = sequence


class Llama:
    """A model, and a context for each number of parallel requests."""

    def __init__(self, job: Job, shape: Shape) -> None:
        llama_cpp.llama_log_set(_quiet, None)
        llama_cpp.llama_backend_init()
        settings = llama_cpp.llama_model_default_params()
        settings.use_mmap = False
        self.model = llama_cpp.llama_model_load_from_file(job.model.encode(), settings)
        if not self.model:
            raise RuntimeError("llama.cpp cannot load the model")
        self.job, self.shape = job, shape
        self.sequences, self.context, self.batch = 0, None, Batch(1)
        self._prepare(1)

    def _prepare(self, sequences: int) -> None:
        """Make a context for so many requests, unless the last one was for as many."""
        if self.sequences == sequences:
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), False)
            return
        if self.context:
            llama_cpp.llama_free(self.context)
        tokens = SEQUENCE_TOKENS if sequences == 1 else 256 * sequences
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = tokens, tokens, self.job.settings.get("rows", PROMPT_ROWS)
        settings.n_seq_max, settings.kv_unified = sequences, self.job.settings.get("unified", False)
        settings.n_threads = settings.n_threads_batch = self.job.threads
        settings.flash_attn_type = int(self.job.settings["flash"])
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        if not self.context:
            raise RuntimeError("llama.cpp cannot make a context")
        self.sequences, self.batch = sequences, Batch(tokens)

    def _decode(self, outputs: int) -> np.ndarray:
        """Logits [outputs, vocab] of the wanted rows; valid until the next call."""
        code = llama_cpp.llama_decode(self.context, self.batch.raw)
        if code:
            raise RuntimeError(f"llama_decode answered {code}")
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits(self.context), shape=(outputs, self.shape.vocab))

    def complete(self, prompts: Sequence[Sequence[int]], new_tokens: int, top_p: float | None = None) -> None:
        number, length = len(prompts), len(prompts[0])
        self._prepare(number)
        sampler = self._sampler(top_p)
        wanted = np.zeros((number, length), np.int8)
        wanted[:, -1] = 1
        self.batch.fill(np.concatenate(prompts), np.tile(np.arange(length), number),
                        np.repeat(np.arange(number), length).tolist(), wanted.reshape(-1))
        rows = [length * (sequence + 1) - 1 for sequence in range(number)]
        chosen = self._choose(self._decode(number), sampler, rows)
        every, ones = list(range(number)), np.ones(number, np.int8)
        self.batch.fill(chosen, np.full(number, length), every, ones)
        for step in range(new_tokens - 1):
            self.batch.token[:number], self.batch.position[:number] = chosen, length + step
            chosen = self._choose(self._decode(number), sampler, every)
        if sampler:
            llama_cpp.llama_sampler_free(sampler)

    def _sampler(self, top_p: float | None) -> object | None:
        """llama.cpp's own chain of samplers; greedy needs none."""
        if top_p is None:
            return None
        chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_top_p(top_p, 1))
        llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_dist(0))
        return chain

    def _choose(self, logits: np.ndarray, sampler: object | None, rows: Sequence[int]) -> np.ndarray:
        if sampler is None:
            return logits.argmax(1)
        return np.array([llama_cpp.llama_sampler_sample(sampler, self.context, row) for row in rows])

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        self._prepare(1)
        self.batch.fill(np.array(ids), np.arange(len(ids)), [0] * len(ids), np.ones(len(ids), np.int8))
        return self._decode(len(ids)).copy()


if __name__ == "__main__":
    main(Llama)
