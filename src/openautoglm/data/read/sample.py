"""A look into the files before anything runs: their first rows and some random ones."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from openautoglm.core.values import Example, Reject
from openautoglm.data.read.paths import count_bytes
from openautoglm.data.read.reader import read
from openautoglm.data.settings import DataSettings

SAMPLE_ROWS = 200_000


class Sample(NamedTuple):
    """First rows and random rows of files, and how much was looked at.

    Attributes:
        first: the first rows, in order.
        random: rows drawn evenly from those looked at, in order.
        rows: rows looked at.
        rejects: rejects among them.
        complete: whether that is every row.
        rows_estimate: rows of all files; exact when complete, else by the share of bytes read.
        per_source: examples that have the same source and turns, on average over those looked at.
    """

    first: list[Example | Reject]
    random: list[Example | Reject]
    rows: int
    rejects: int
    complete: bool
    rows_estimate: int
    per_source: float = 1.0


def sample(paths: Iterable[Path], settings: DataSettings, n: int, seed: int, *,
           max_rows: int = SAMPLE_ROWS) -> Sample:
    """Return the first `n` rows and `n` random ones of the first `max_rows` (reservoir, Vitter 1985).

    Raises:
        DataError: as `read`.
    """
    paths, chance, bytes_read = list(paths), random.Random(seed), 0  # nosec B311  # no secret
    first: list[Example | Reject] = []
    drawn: list[tuple[int, Example | Reject]] = []
    rows = rejects = 0
    complete = True
    sources: set[int] = set()

    def on_bytes(count: int) -> None:
        nonlocal bytes_read
        bytes_read += count

    for item in read(paths, settings, on_bytes):
        if rows == max_rows:
            complete = False
            break
        rejects += isinstance(item, Reject)
        if isinstance(item, Example):
            sources.add(hash((item.source, item.turns)) if item.source or item.turns else -rows)
        if rows < n:
            first.append(item)
            drawn.append((rows, item))
        elif (place := chance.randrange(rows + 1)) < n:
            drawn[place] = (rows, item)
        rows += 1
    estimate = rows if complete else max(rows, round(rows * count_bytes(paths) / max(bytes_read, 1)))
    drawn.sort(key=lambda pair: pair[0])
    return Sample(first, [item for _, item in drawn], rows, rejects, complete, estimate,
                  max(1.0, (rows - rejects) / max(1, len(sources))))
