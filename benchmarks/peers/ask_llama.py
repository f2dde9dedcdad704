"""Ask llama.cpp what a GGUF file gives: `python -m peers.ask_llama QUESTION.json` (environment llama).

The question names the file, and has texts to tokenise, rows of ids whose logits are wanted, prompts of ids that are
gone on with greedily, or chats to render. The answer is written beside it, as .npz. The cache holds fp32.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

GGML_TYPE_F32 = 0


def open_model(question: dict[str, Any]) -> llama_cpp.Llama:
    """Load the file, mapped or not as it likes."""
    return llama_cpp.Llama(question["file"], n_ctx=question.get("context", 512), n_batch=512, logits_all=True,
                           type_k=GGML_TYPE_F32, type_v=GGML_TYPE_F32, flash_attn=False, n_threads=2,
                           vocab_only=question.get("vocabulary", False), verbose=False)


def logits(model: llama_cpp.Llama, ids: list[int]) -> np.ndarray:
    """Logits [tokens, vocabulary]."""
    model.reset()
    model.eval(ids)
    return np.array(model.scores[:len(ids)])


def go_on(model: llama_cpp.Llama, ids: list[int], most: int) -> list[int]:
    """The likeliest tokens after a prompt, until one that ends the text."""
    model.reset()
    model.eval(ids)
    found: list[int] = []
    while len(found) < most:
        token = int(model.scores[model.n_tokens - 1].argmax())
        if llama_cpp.llama_vocab_is_eog(model._model.vocab, token):
            break
        found.append(token)
        model.eval([token])
    return found


def render(model: llama_cpp.Llama, messages: list[dict[str, str]]) -> list[int]:
    """The ids of a chat, by the file's own template."""
    text = Jinja2ChatFormatter(template=model.metadata["tokenizer.chat_template"], eos_token="", bos_token="")(
        messages=messages).prompt
    return model.tokenize(text.encode(), add_bos=False, special=True)


def main(path: Path) -> None:
    """Answer."""
    question = json.loads(path.read_text(encoding="utf-8"))
    model = open_model(question)
    answer = {"ends": np.array([i for i in range(model.n_vocab())
                                if llama_cpp.llama_vocab_is_eog(model._model.vocab, i)])}
    for number, text in enumerate(question.get("texts", ())):
        answer[f"text{number}"] = np.array(model.tokenize(text.encode(), add_bos=True, special=False), np.int64)
    for number, ids in enumerate(question.get("ids", ())):
        answer[f"logits{number}"] = logits(model, ids)
    for number, ids in enumerate(question.get("prompts", ())):
        answer[f"answer{number}"] = np.array(go_on(model, ids, question["most"]), np.int64)
    for number, messages in enumerate(question.get("chats", ())):
        answer[f"chat{number}"] = np.array(render(model, messages), np.int64)
    np.savez(path.with_suffix(".npz"), **answer)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
