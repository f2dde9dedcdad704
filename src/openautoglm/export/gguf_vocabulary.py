"""The vocabulary as llama.cpp reads it: pieces, their types, merges, the pre-tokeniser's name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from openautoglm.core.errors import TokenizerError
from openautoglm.export.gguf_splits import Choice, choose
from openautoglm.export.source import Source
from openautoglm.text.tokenizer import END, START, Tokenizer

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Types of tokens in GGUF."""
_MOST_ENDS = 3


@dataclass(frozen=True)
class Vocabulary:
    """What the file says of the tokenizer.

    Attributes:
        pieces, types: [vocab_size] of the model's ids; those that the tokenizer does not have are unused.
        merges: pairs of pieces, the first merged first.
        ends: ids that end a text, at most three.
        notes: what a person should know.
    """

    pieces: list[str]
    types: list[int]
    merges: list[str]
    split: Choice
    start: int
    ends: tuple[int, ...]
    pad: int
    notes: tuple[str, ...]


def vocabulary_of(source: Source) -> Vocabulary:
    """Make the vocabulary of a model.

    Raises:
        TokenizerError: the tokenizer is no byte-level BPE, or has more ids than the model.
    """
    tokenizer, spec, where = source.tokenizer, source.spec, str(source.folder / "tokenizer.json")
    if tokenizer.vocab_size > spec.vocab_size:
        raise TokenizerError(f"the tokenizer has {tokenizer.vocab_size} ids, the model {spec.vocab_size}", where=where,
                             remedy="use the tokenizer and the weights of one and the same model")
    definition = _definition(source.folder, where)
    bytes_of = tokenizer.pieces  # raises where the vocabulary is not byte-level
    pieces, types = _pieces(definition, tokenizer, spec.vocab_size)
    texts = [text for piece in bytes_of if (text := piece.decode("utf-8", "ignore")).encode() == piece and text]
    notes = []
    ends = spec.eos_ids or (tokenizer.special[END],)
    if len(ends) > _MOST_ENDS:
        notes.append(f"GGUF holds {_MOST_ENDS} ids that end a text; {list(ends[_MOST_ENDS:])} are left out")
    split = choose(definition, texts)
    if told := split.told():
        notes.append(told)
    merges = [" ".join(pair) for pair in definition["model"]["merges"]]
    return Vocabulary(pieces, types, merges, split, tokenizer.special[START], ends[:_MOST_ENDS],
                      tokenizer.pad_id if spec.pad_id is None else spec.pad_id, tuple(notes))


def _definition(folder: Path, where: str) -> dict[str, Any]:
    """The tokenizer as its library understands the file: it numbers added tokens itself."""
    try:
        found: dict[str, Any] = json.loads(tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).to_str())
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(f"cannot be read: {error}", where=where, remedy="fetch or write it again") from error
    if (kind := found["model"]["type"]) != "BPE":
        raise TokenizerError(f"is of type {kind}", where=where, remedy="use a GLM-4 tokenizer, which is byte-level BPE")
    return found


def _pieces(definition: dict[str, Any], tokenizer: Tokenizer, size: int) -> tuple[list[str], list[int]]:
    """Pieces and types of all ids of the model."""
    found: dict[int, tuple[str, int]] = {i: (text, NORMAL) for text, i in definition["model"]["vocab"].items()}
    for token in definition.get("added_tokens") or ():
        kind = CONTROL if token["content"] in tokenizer.special else USER_DEFINED
        found[token["id"]] = (token["content"], kind)
    taken = {text for text, _ in found.values()}
    pieces, types = [], []
    for i in range(size):
        text, kind = found.get(i, (f"[PAD{i}]", UNUSED))
        while kind == UNUSED and text in taken:
            text += "_"
        pieces.append(text)
        types.append(kind)
    return pieces, types

