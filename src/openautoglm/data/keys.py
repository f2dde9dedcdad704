"""From texts to numbers: 64-bit keys of equal texts, words, MinHash signatures, band keys.

Keys are BLAKE2b of the normalised text, cut to 64 bits: among a million texts two different ones share a key
with probability 3e-8. Signatures come from rensa (MinHash, Broder 1997); banding follows Leskovec, Rajaraman
and Ullman, Mining of Massive Datasets, 3.4.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openautoglm.core.extras import require
from openautoglm.data.clean_settings import NearSettings
from openautoglm.data.tables import U64

_CACHE = 1 << 14
_WANTED_RECALL = 0.95
_UNSPACED = re.compile("([\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
                       "\U00020000-\U0003ffff])")
_EDGES = re.compile(r"^[\W_]+|[\W_]+$")
_ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)


def normalised(text: str) -> str:
    """Return the form in which texts are compared: NFKC, case folded, every run of whitespace one space."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def key(text: str) -> int:
    """Return 64 bits that stand for a text."""
    return int.from_bytes(_digest(text), "little")


def keys(texts: Iterable[str]) -> U64:
    """Return the keys of many texts."""
    return np.frombuffer(b"".join(map(_digest, texts)), dtype="<u8")


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def split_words(text: str) -> list[str]:
    """Split a normalised text where whitespace is; a Han or kana character is a word of its own."""
    if not text.isascii() and _UNSPACED.search(text):
        text = _UNSPACED.sub(r" \1 ", text)
    return text.split()


class _Remembered(dict[str, int]):
    """The keys of words seen lately, without the punctuation around them (a word of punctuation only keeps it).

    Forgets everything when full, so its size is bounded.
    """

    def __missing__(self, word: str) -> int:
        if len(self) >= _CACHE:
            self.clear()
        value = self[word] = key(_EDGES.sub("", word) or word)
        return value


class WordKeys:
    """Makes the keys of words; remembers those of lately seen ones."""

    def __init__(self) -> None:
        self._words = _Remembered()

    def of(self, texts: Sequence[str]) -> tuple[U64, NDArray[np.int64]]:
        """Return the word keys of normalised texts, one after another, and how many each text has."""
        remembered = self._words
        split = [split_words(text) for text in texts]
        counts = np.fromiter(map(len, split), dtype=np.int64, count=len(split))
        flat = np.fromiter(map(remembered.__getitem__, chain.from_iterable(split)), dtype=np.uint64,
                           count=int(counts.sum()))
        return flat, counts


def mix(values: U64, salt: int) -> U64:
    """Scramble 64-bit values with a salt (the finaliser of SplitMix64, Steele et al. 2014)."""
    out = values + np.uint64((salt + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)
    out = (out ^ (out >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    out = (out ^ (out >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(out ^ (out >> np.uint64(31)))


def shingles(words: U64, counts: NDArray[np.int64], size: int) -> tuple[U64, U64]:
    """Return the hashes of each text's shingles of `size` words, one after another, and row offsets (rows +
    1).

    A text shorter than `size` has one shingle: all its words.
    """
    size_of = np.minimum(np.maximum(counts, 1), size)
    ends = np.cumsum(counts)
    if not len(words):
        return words, np.zeros(len(counts) + 1, dtype=np.uint64)
    rolled = np.zeros(len(words), dtype=np.uint64)
    remaining = np.repeat(ends, counts) - np.arange(len(words))
    width = np.repeat(size_of, counts)
    for step in range(int(size_of.max())):
        inside = len(words) - step
        part = mix(words[step:], step)
        rolled[:inside] += np.where(step < np.minimum(width, remaining)[:inside], part, np.uint64(0))
    starts = remaining >= width
    made = np.where(counts > 0, counts - size_of + 1, 0)
    offsets = np.concatenate([[0], np.cumsum(made)]).astype(np.uint64)
    return rolled[starts], offsets


class Signer:
    """Makes MinHash signatures and their band keys.

    Bands are as wide as they can be while two texts at the threshold still share one with probability 0.95.
    """

    def __init__(self, settings: NearSettings) -> None:
        self.settings = settings
        self.band_rows = band_rows(settings.threshold, settings.permutations)
        self.bands = settings.permutations // self.band_rows
        self._minhash: Any = require("rensa", "train").RMinHash

    def sign(self, words: U64, counts: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Return signatures, shape (texts, permutations)."""
        hashes, offsets = shingles(words, counts, self.settings.shingle)
        size = self.settings.permutations
        matrix = self._minhash.digest_matrix_from_flat_token_hashes(hashes, offsets, size, 1)
        flat = np.fromiter(chain.from_iterable(matrix.to_rows()), dtype=np.uint32, count=len(counts) * size)
        return flat.reshape(len(counts), size)

    def band_keys(self, signatures: NDArray[np.uint32]) -> U64:
        """Return the keys of all bands, shape (texts, bands)."""
        used = self.bands * self.band_rows
        parts = signatures[:, :used].astype(np.uint64).reshape(len(signatures), self.bands, self.band_rows)
        keys = np.zeros(parts.shape[:2], dtype=np.uint64)
        for step in range(self.band_rows):
            keys = (keys ^ parts[:, :, step]) * _ODD[step % len(_ODD)] + (keys >> np.uint64(29))
        return np.stack([mix(keys[:, band], band) for band in range(self.bands)], axis=1)

    def similarity(self, left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Estimate Jaccard similarities from the low bytes of signatures, shapes (pairs, permutations)."""
        equal = (left == right).mean(axis=1)
        return np.asarray((equal - 1 / 256) / (1 - 1 / 256))


def band_rows(threshold: float, permutations: int) -> int:
    """Return the widest band with which a pair at `threshold` shares a band with probability 0.95."""
    for rows in range(permutations, 1, -1):
        misses = (permutations // rows) * math.log1p(-(threshold**rows))
        if math.exp(misses) <= 1 - _WANTED_RECALL:
            return rows
    return 1
