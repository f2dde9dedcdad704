"""Examples as token ids on disk: flat arrays in mapped files, so that many rows need little memory."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from openautoglm.core.errors import DataError
from openautoglm.core.files import atomic_folder, read_json, write_json
from openautoglm.core.values import Example

FORMAT = 1
_CHUNK = 2048

Ids = NDArray[np.int32]


class EncodedExample(Protocol):
    """What a template returns for one example: its ids, and how many of them are the prompt."""

    @property
    def ids(self) -> Sequence[int]: ...
    @property
    def prompt_tokens(self) -> int: ...


class ExampleEncoder(Protocol):
    """The part of a template that the store needs."""

    def encode_many(self, examples: Sequence[Example], tokenizer: Any, /) -> Sequence[EncodedExample]: ...


@dataclass(frozen=True)
class TokenStore:
    """Tokenised examples. Number ``i`` is ``ids[offsets[i]:offsets[i + 1]]``, ``prompts[i]`` of it prompt.

    Attributes:
        ids: all tokens one after another, int32 [tokens].
        offsets: where each example starts, int64 [examples + 1].
        prompts: number of prompt tokens of each example, int32 [examples].
        groups: number of the example's source, int64 [examples]; equal for examples with the same prompt.
        overlong: examples left out because they exceed ``max_tokens``.
        max_tokens: the longest example admitted.
        fingerprint: identifies the content; a checkpoint holds it.
    """

    ids: Ids
    offsets: NDArray[np.int64]
    prompts: Ids
    groups: NDArray[np.int64]
    overlong: int
    max_tokens: int
    fingerprint: str

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: int) -> Ids:
        """The ids of one example, prompt and target."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example, prompt included, int64 [examples]."""
        return np.diff(self.offsets)

    @property
    def tokens(self) -> int:
        """Tokens of all examples."""
        return int(self.offsets[-1])

    @property
    def target_tokens(self) -> int:
        """Tokens that carry loss."""
        return self.tokens - int(self.prompts.sum(dtype=np.int64))


def build_store(examples: Iterable[Example], template: ExampleEncoder, tokenizer: Any, path: str | Path,
                max_tokens: int, *, max_overlong_ratio: float = 0.01) -> TokenStore:
    """Encode `examples` into the folder `path` (atomically) and open it.

    An example longer than `max_tokens` is left out and counted, never cut.

    Raises:
        DataError: no example is left, a target is empty, or more than `max_overlong_ratio` are over-long.
    """
    path = Path(path)
    with atomic_folder(path) as folder:
        writer = _Writer(max_tokens)
        with (folder / "ids.bin").open("wb") as file:
            for chunk in _chunks(examples):
                for example, encoded in zip(chunk, template.encode_many(chunk, tokenizer), strict=True):
                    writer.add(example, encoded, file)
        writer.check(max_overlong_ratio, path)
        np.save(folder / "offsets.npy", np.asarray(writer.offsets, np.int64))
        np.save(folder / "prompts.npy", np.asarray(writer.prompts, np.int32))
        np.save(folder / "groups.npy", np.asarray(writer.groups, np.int64))
        write_json(folder / "store.json", {
            "format": FORMAT, "examples": len(writer.prompts), "tokens": writer.offsets[-1],
            "sources": len(writer.sources), "overlong": writer.overlong, "max_tokens": max_tokens,
            "fingerprint": writer.digest.hexdigest()[:16],
        })
    return open_store(path)


def open_store(path: str | Path) -> TokenStore:
    """Map a store written by `build_store`; raises DataError if it is absent, damaged or of another form."""
    path = Path(path)
    try:
        facts = read_json(path / "store.json")
        offsets, prompts, groups = (np.load(path / f"{name}.npy", allow_pickle=False)
                                    for name in ("offsets", "prompts", "groups"))
        ids = np.memmap(path / "ids.bin", np.int32, "r")
    except (OSError, ValueError) as error:
        raise DataError(f"not a readable token store: {error}", where=str(path),
                        remedy="delete the folder and run the stage again") from error
    whole = len(ids) == offsets[-1] == facts.get("tokens") and len(prompts) == len(groups) == len(offsets) - 1
    if facts.get("format") != FORMAT or not whole:
        raise DataError("the token store is damaged or of another format", where=str(path),
                        remedy="delete the folder and run the stage again")
    return TokenStore(ids, offsets, prompts, groups, facts["overlong"], facts["max_tokens"],
                      facts["fingerprint"])


def store_from_ids(rows: Iterable[tuple[Sequence[int], int]]) -> TokenStore:
    """A store in memory from (ids, prompt tokens) pairs, for tests, benchmarks and small data."""
    writer = _Writer(max_tokens=2**31 - 1)
    flat: list[int] = []
    for ids, prompt_tokens in rows:
        writer.count(np.asarray(ids, np.int32), prompt_tokens)
        flat.extend(ids)
    return TokenStore(np.asarray(flat, np.int32), np.asarray(writer.offsets, np.int64),
                      np.asarray(writer.prompts, np.int32), np.asarray(writer.groups, np.int64),
                      0, writer.max_tokens, writer.digest.hexdigest()[:16])


class _Writer:
    """Counts what goes into a store while the ids stream past."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.offsets = array("q", [0])
        self.prompts = array("i")
        self.groups = array("q")
        self.sources: dict[bytes, int] = {}
        self.overlong = 0
        self.first_overlong = ""
        self.digest = hashlib.sha256()

    def add(self, example: Example, encoded: EncodedExample, file: BinaryIO) -> None:
        if len(encoded.ids) > self.max_tokens:
            self.overlong += 1
            self.first_overlong = self.first_overlong or str(example.origin)
            return
        if not 0 < encoded.prompt_tokens < len(encoded.ids):
            raise DataError("an example needs at least one prompt token and one target token",
                            where=str(example.origin),
                            remedy="check the template, and drop rows with an empty target")
        ids = np.asarray(encoded.ids, np.int32)
        file.write(ids.tobytes())
        self.count(ids, encoded.prompt_tokens)

    def count(self, ids: Ids, prompt_tokens: int) -> None:
        self.offsets.append(self.offsets[-1] + len(ids))
        self.prompts.append(prompt_tokens)
        source = hashlib.blake2b(ids[:prompt_tokens].tobytes(), digest_size=16).digest()
        self.groups.append(self.sources.setdefault(source, len(self.sources)))
        self.digest.update(np.asarray([len(ids), prompt_tokens], np.int32).tobytes() + ids.tobytes())

    def check(self, max_overlong_ratio: float, path: Path) -> None:
        total = len(self.prompts) + self.overlong
        if self.overlong > max_overlong_ratio * total:
            raise DataError(
                f"{self.overlong} of {total} examples are longer than {self.max_tokens} tokens "
                f"(at most {max_overlong_ratio:.1%} may be)", where=self.first_overlong,
                remedy="raise max_tokens, shorten the rows with a length rule, or raise max_overlong_ratio")
        if not self.prompts:
            raise DataError("no example is left to train on", where=str(path),
                            remedy="check the data stage's counts")


def _chunks(examples: Iterable[Example]) -> Iterator[list[Example]]:
    iterator = iter(examples)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk
