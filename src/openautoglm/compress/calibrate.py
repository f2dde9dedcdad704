"""Calibration: which sequences the model is shown, and its hidden states on their way through the layers."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from openautoglm.compress.settings import CalibrationSettings
from openautoglm.core.errors import DataError
from openautoglm.core.files import atomic_write
from openautoglm.models.spec import GlmSpec

BATCH_TOKENS = 1024
"""Tokens that pass through a layer at a time; a longer sequence passes as one."""
_LEAST_TOKENS = 2


@dataclass(frozen=True)
class Batch:
    """Neighbouring sequences: the first row of their states, and the length of each."""

    start: int
    lengths: tuple[int, ...]

    @property
    def stop(self) -> int:
        """The row behind their last."""
        return self.start + sum(self.lengths)


@dataclass(frozen=True)
class Calibration:
    """The sequences that are shown to the model."""

    sequences: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        """Tokens of all."""
        return sum(map(len, self.sequences))

    @property
    def longest(self) -> int:
        """Tokens of the longest."""
        return max(map(len, self.sequences))

    def batches(self) -> list[Batch]:
        """The sequences in batches of about `BATCH_TOKENS`."""
        found, start, lengths = [], 0, list[int]()
        for sequence in self.sequences:
            if lengths and sum(lengths) + len(sequence) > BATCH_TOKENS:
                found.append(Batch(start, tuple(lengths)))
                start, lengths = found[-1].stop, []
            lengths.append(len(sequence))
        return [*found, Batch(start, tuple(lengths))]

    def first(self, tokens: int) -> Calibration:
        """The first sequences, as many as have `tokens` together at most; at least one, cut where it is longer."""
        kept, room = list[tuple[int, ...]](), tokens
        for sequence in self.sequences:
            if len(sequence) > room:
                break
            kept.append(sequence)
            room -= len(sequence)
        return Calibration(tuple(kept) or (self.sequences[0][:tokens],))

    def fingerprint(self) -> str:
        """What tells these sequences from others."""
        digest = hashlib.sha256()
        for sequence in self.sequences:
            digest.update(len(sequence).to_bytes(8, "little") + np.asarray(sequence, "<i8").tobytes())
        return digest.hexdigest()


def choose(sequences: Sequence[Sequence[int]] | None, settings: CalibrationSettings, spec: GlmSpec) -> Calibration:
    """Choose the sequences of the calibration; long ones are cut into pieces, pieces of one token are left out.

    Raises:
        DataError: there is none, or an id lies outside the model's vocabulary.
    """
    longest = min(settings.tokens, spec.max_positions)
    pieces = []
    for number, sequence in enumerate(sequences or ()):
        ids = tuple(int(token) for token in sequence)
        outside = [token for token in ids if not 0 <= token < spec.vocab_size]
        if outside:
            raise DataError(f"the id {outside[0]} lies outside the vocabulary of {spec.vocab_size}",
                            where=f"calibration sequence {number}", remedy="make the ids with the model's tokenizer")
        cut = [ids[start:start + longest] for start in range(0, len(ids), longest)]
        pieces += [piece for piece in cut if len(piece) >= min(_LEAST_TOKENS, longest)]
    if not pieces:
        raise DataError("there is no sequence of two tokens or more to calibrate with", where="calibration",
                        remedy="give token ids of texts as the model will see them, or use the method rtn")
    if len(pieces) > settings.samples:
        dice = random.Random(settings.seed)  # nosec B311  # a choice of texts, no secret
        kept = sorted(dice.sample(range(len(pieces)), settings.samples))
        pieces = [pieces[number] for number in kept]
    return Calibration(tuple(pieces))


class States:
    """A row of fp32 values for each calibration token, in memory or in a file; the values are the same in both.

    A file is read and written, never mapped, so that its pages do not count as the process' memory.
    """

    def __init__(self, rows: int, width: int, file: Path | None = None) -> None:
        self.rows, self.width, self.file = rows, width, file
        self._held = torch.empty(rows, width) if file is None else None
        if file is not None:
            with file.open("wb") as handle:
                handle.truncate(rows * width * 4)

    def read(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop) as a copy."""
        if self._held is not None:
            return self._held[start:stop].clone()
        assert self.file is not None
        values = np.fromfile(self.file, np.float32, (stop - start) * self.width, offset=start * self.width * 4)
        return torch.from_numpy(values).view(stop - start, self.width)

    def write(self, start: int, values: Tensor) -> None:
        """Replace rows from `start` on."""
        if self._held is not None:
            self._held[start:start + len(values)] = values
            return
        assert self.file is not None
        with self.file.open("r+b") as handle:
            handle.seek(start * self.width * 4)
            handle.write(values.contiguous().numpy().data)

    def copy(self, other: States) -> None:
        """Take over all rows of others of the same size."""
        for start in range(0, self.rows, BATCH_TOKENS):
            self.write(start, other.read(start, min(start + BATCH_TOKENS, self.rows)))

    def discard(self) -> None:
        """Remove the file, where there is one."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)

    def save(self, path: Path) -> None:
        """Write all rows to a file, atomically."""
        with atomic_write(path, "wb") as handle:
            for start in range(0, self.rows, BATCH_TOKENS):
                handle.write(self.read(start, min(start + BATCH_TOKENS, self.rows)).numpy().data)

    def load(self, path: Path) -> bool:
        """Read all rows from a file; False where it is absent or of another size."""
        if not path.is_file() or path.stat().st_size != self.rows * self.width * 4:
            return False
        for start in range(0, self.rows, BATCH_TOKENS):
            count = min(BATCH_TOKENS, self.rows - start)
            values = np.fromfile(path, np.float32, count * self.width, offset=start * self.width * 4)
            self.write(start, torch.from_numpy(values).view(count, self.width))
        return True
