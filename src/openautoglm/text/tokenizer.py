"""Byte-level BPE with GLM-4's special tokens: trained on the data, or read from a released checkpoint.

Byte-level BPE: Sennrich et al. 2016 (arXiv 1508.07909) over the bytes of UTF-8, so that every text has ids.
Special tokens are never made from text: a literal ``<|user|>`` in the data is nine plain characters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from openautoglm.core.errors import TokenizerError
from openautoglm.core.files import fingerprint, write_json

END, SYSTEM, USER, ASSISTANT, OBSERVATION = (
    "<|endoftext|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
)
GMASK, START, PAD = "[gMASK]", "<sop>", "<|pad|>"
GLM4_SPECIAL = (END, "[MASK]", GMASK, "[sMASK]", START, "<eop>", SYSTEM, USER, ASSISTANT, OBSERVATION)
"""GLM-4's special tokens, in the order of their ids in the released checkpoints."""

_ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
_PLAIN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]  # bytes that byte-level BPE writes as themselves
_OTHER = sorted({*range(256)} - {*_PLAIN})
_BYTES = {chr(b): b for b in _PLAIN} | {chr(256 + number): b for number, b in enumerate(_OTHER)}
SMALLEST_VOCABULARY = len(_ALPHABET) + len(GLM4_SPECIAL) + 1
"""All bytes and all special tokens, no merges."""

_WORDS = r" ?[\p{L}\p{M}]+| ?\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s+"
"""Merges never cross these pieces: a word, up to three digits, punctuation (each with one space before it),
spaces.
"""


class Tokenizer:
    """Text to ids and back.

    Build one with `train` or `load`. Instances are immutable for their users and safe to share between
    threads.
    """

    def __init__(self, backend: tokenizers.Tokenizer, *, where: str = "tokenizer") -> None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True  # special tokens in a text are text
        self._backend = backend
        self.special: Mapping[str, int] = MappingProxyType(
            {
                token.content: i
                for i, token in sorted(backend.get_added_tokens_decoder().items())
                if token.special
            }
        )
        missing = [token for token in (END, START, USER, ASSISTANT) if token not in self.special]
        if missing:
            raise TokenizerError(
                f"the tokenizer lacks the special tokens {', '.join(missing)}",
                where=where,
                remedy="use a GLM-4 tokenizer, or train one on the data",
            )

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Learn merges from `texts` until `vocab_size` ids exist, special tokens included.

        Few texts may give fewer ids than asked for. The result depends on the texts only, not on their
        order's hashing, the machine or the number of threads.

        Raises:
            TokenizerError: `vocab_size` is too small to hold all bytes, or a text is not valid Unicode.
        """
        if vocab_size < SMALLEST_VOCABULARY:
            raise TokenizerError(
                f"a vocabulary of {vocab_size} cannot hold all bytes and special tokens",
                remedy=f"ask for at least {SMALLEST_VOCABULARY} tokens",
            )
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_WORDS), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        special = (*GLM4_SPECIAL, PAD)
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - len(special), initial_alphabet=_ALPHABET, show_progress=False
        )
        try:
            backend.train_from_iterator(texts, trainer)
        except UnicodeEncodeError as error:
            raise _not_unicode(str(error)) from error
        backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
        return cls(backend)

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Open the ``tokenizer.json`` of `folder` (ours, or a released checkpoint's).

        Raises:
            TokenizerError: the file is missing, damaged, or not a GLM-4 style tokenizer.
        """
        path = Path(folder) / "tokenizer.json"
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TokenizerError(
                f"cannot be read: {error}",
                where=str(path),
                remedy="give a folder that holds a tokenizer.json",
            ) from error
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise TokenizerError(
                f"is damaged: {error}", where=str(path), remedy="fetch or write it again"
            ) from error
        return cls(backend, where=str(path))

    def save(self, folder: str | Path, *, chat_template: str | None = None) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json`` (with a Jinja `chat_template` if given).

        ``transformers.AutoTokenizer`` loads the folder.
        """
        folder = Path(folder)
        write_json(folder / "tokenizer.json", json.loads(self._backend.to_str()))
        pad = next(token for token, i in self.special.items() if i == self.pad_id)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "pad_token": pad,
            "clean_up_tokenization_spaces": False,
            "padding_side": "left",
            "model_input_names": ["input_ids", "attention_mask"],
        }
        if chat_template is not None:
            config["chat_template"] = chat_template
        write_json(folder / "tokenizer_config.json", config)

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return self._size

    @cached_property
    def _size(self) -> int:
        return 1 + max(self._backend.get_vocab(with_added_tokens=True).values())

    @cached_property
    def pieces(self) -> tuple[bytes, ...]:
        """[vocab_size] the bytes of each id; empty for special tokens and for ids that do not exist.

        Raises:
            TokenizerError: the vocabulary is not byte-level.
        """
        pieces = [b""] * self.vocab_size
        try:
            for text, i in self._backend.get_vocab(with_added_tokens=False).items():
                pieces[i] = bytes(_BYTES[letter] for letter in text)
        except KeyError as error:
            raise TokenizerError(f"the vocabulary is not byte-level: it holds the letter {error}",
                                 remedy="use a GLM-4 tokenizer, or train one on the data") from error
        for i, token in self._backend.get_added_tokens_decoder().items():
            pieces[i] = b"" if token.special else token.content.encode()
        return tuple(pieces)

    @property
    def pad_id(self) -> int:
        """The id that fills short rows: ``<|pad|>`` where there is one, else GLM-4's, the end token."""
        return self.special.get(PAD, self.special[END])

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that identify the vocabulary and the merges."""
        return fingerprint(json.loads(self._backend.to_str()))

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`: no token is added, and none of them is special.

        Raises:
            TokenizerError: `text` holds a lone surrogate, which is not Unicode text.
        """
        try:
            ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        except TypeError as error:
            raise _not_unicode(repr(text[:80])) from error
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return `encode` of each text, on all cores."""
        try:
            encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError as error:
            raise _not_unicode(next(repr(text[:80]) for text in texts if not _is_unicode(text))) from error
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Return the text of `ids`; bytes that are not UTF-8 become U+FFFD, ids out of range nothing."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=skip_special)
        return text


def byte_letters() -> Mapping[str, int]:
    """The letters with which byte-level BPE writes bytes, and the bytes."""
    return MappingProxyType(_BYTES)


def _is_unicode(text: str) -> bool:
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in text)


def _not_unicode(detail: str) -> TokenizerError:
    return TokenizerError(
        f"text with a lone surrogate is not Unicode: {detail}",
        remedy="repair it first, e.g. by the cleaning rule `unicode`",
    )
