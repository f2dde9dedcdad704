"""llama.cpp itself reads the file: logits, ids and ends. Skipped where llama-cpp-python is not installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from openautoglm.export.gguf import write_gguf
from openautoglm.export.source import open_source
from openautoglm.models.bundle import Bundle

pytest.importorskip("gguf", reason="gguf is not installed: pip install 'openautoglm[export]' -c constraints.txt")
llama_cpp = pytest.importorskip(
    "llama_cpp", reason="llama-cpp-python compiles for some minutes, so it is in no extra: pip install "
    "llama-cpp-python==0.3.36, or run benchmarks/gguf_parity.py, which makes an environment for it")


def test_llama_cpp_gives_our_logits_and_ids(bundle: Bundle, tmp_path: Path) -> None:
    path = write_gguf(open_source(bundle), tmp_path / "model.gguf").path
    model = llama_cpp.Llama(str(path), n_ctx=64, logits_all=True, type_k=0, type_v=0, flash_attn=False, n_threads=1,
                            verbose=False)
    text = "The Punter is a cheap pub near Café Rouge.\n\n It's  12 of 345."
    ids = model.tokenize(text.encode(), add_bos=True, special=False)
    assert ids == bundle.tokenizer.encode(text)
    ends = {i for i in range(model.n_vocab()) if llama_cpp.llama_vocab_is_eog(model._model.vocab, i)}
    assert ends >= set(bundle.spec.eos_ids)
    model.eval(ids)
    with torch.inference_mode():
        wanted = bundle.model()(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(model.scores[:len(ids)], wanted, atol=1e-3)
