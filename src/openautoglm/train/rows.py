"""What a frozen model says of each token, on disk: computed once, mapped, filled so that a killed run goes on.

Every token of a store has a row, but a prompt is there once for all examples of its source.
"""

from __future__ import annotations

import mmap
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from openautoglm.core.errors import ResourceError
from openautoglm.core.files import fingerprint, read_json, write_json
from openautoglm.core.progress import progress
from openautoglm.data.pack import Batch, in_order
from openautoglm.data.tokens import TokenStore

Int64 = NDArray[np.int64]
_FLUSH_EVERY = 32
BATCH_TOKENS = 1024


class InputRows:
    """Rows of all input tokens: the prompt of every source once, then every target less its last token."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store
        prompts = np.zeros(int(store.groups.max()) + 1, np.int64)
        prompts[store.groups] = store.prompts
        self._of_source = np.concatenate(([0], np.cumsum(prompts)))
        targets = store.lengths - store.prompts - 1
        self._of_target = self._of_source[-1] + np.concatenate(([0], np.cumsum(targets)))
        self.count = int(self._of_target[-1])

    def __call__(self, tokens: Int64) -> Int64:
        """The row of each token, by its place in the store's ids; that of the first token for -1."""
        examples, within = _inside(self._store, np.maximum(tokens, 0))
        beyond = within - self._store.prompts[examples]
        return np.where(beyond < 0, self._of_source[self._store.groups[examples]] + within,
                        self._of_target[examples] + beyond)


class TargetRows:
    """Rows of all target tokens, one example after another."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store
        self._starts = np.concatenate(([0], np.cumsum(store.lengths - store.prompts)))
        self.count = int(self._starts[-1])

    def __call__(self, tokens: Int64) -> Int64:
        """The row of each target token, by its place in the store's ids."""
        examples, within = _inside(self._store, tokens)
        return self._starts[examples] + within - self._store.prompts[examples]


def _inside(store: TokenStore, tokens: Int64) -> tuple[Int64, Int64]:
    """The example of each token, and the token's place in it."""
    examples = np.searchsorted(store.offsets, tokens, side="right") - 1
    return examples, tokens - store.offsets[examples]


class RowFiles:
    """Mapped arrays [rows, width], one a column.

    Args:
        folder: theirs alone; what is there of another identity is replaced.
        identity: what the content depends on, JSON-like.
        columns: width and type of each array.
        limit_bytes: bound of all arrays together.
        where: the setting that asked for them, for errors.

    Raises:
        ResourceError: they would be larger than the bound, or than the free disk.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], columns: Mapping[str, tuple[int, DTypeLike]],
                 rows: int, *, limit_bytes: float, where: str) -> None:
        self._folder, self._rows = folder, rows
        self._identity = fingerprint({**identity, "rows": rows, "columns": {
            name: [width, np.dtype(dtype).str] for name, (width, dtype) in columns.items()}})
        self._columns = columns
        size = sum(rows * width * np.dtype(dtype).itemsize for width, dtype in columns.values())
        if size > limit_bytes:
            raise ResourceError(f"the cache takes {size / 2**30:.2f} GiB, above its bound of "
                                f"{limit_bytes / 2**30:.2f} GiB", where=where,
                                remedy="raise the bound, or switch the cache off")
        self._state = self._read_state()
        folder.mkdir(parents=True, exist_ok=True)
        if self._state is None:
            (folder / "rows.json").unlink(missing_ok=True)
        if self._state is None and (free := shutil.disk_usage(folder).free) < size:
            raise ResourceError(f"the cache takes {size / 2**30:.2f} GiB, the disk has {free / 2**30:.2f} GiB free",
                                where=where, remedy="free disk space, or switch the cache off")
        self._arrays = {name: self._map(name, width, dtype) for name, (width, dtype) in columns.items()}
        if self._state is None:
            self._note(0, finished=False)

    def fill(self, store: TokenStore, compute: Callable[[Batch], Mapping[str, NDArray[Any]]],
             rows_of: Callable[[Batch], Int64], label: str) -> None:
        """Compute all rows, batch by batch; what a former call finished is left alone.

        Args:
            compute: the columns of a batch.
            rows_of: where they go; -1 drops one.
        """
        assert self._state is not None
        if self._state["finished"]:
            return
        done = int(self._state["batches"])
        with progress(len(store), label, "records") as bar:
            for number, batch in enumerate(in_order(store, batch_tokens=BATCH_TOKENS), start=1):
                if number > done:
                    rows = rows_of(batch)
                    kept = rows >= 0
                    for name, values in compute(batch).items():
                        self._arrays[name][rows[kept]] = values[kept]
                    if number % _FLUSH_EVERY == 0:
                        self._note(number, finished=False)
                bar.advance(batch.examples)
        self._note(0, finished=True)

    def read(self, name: str, rows: Int64) -> NDArray[Any]:
        """Copy some rows of a column; nothing of the file stays in the process."""
        array = self._arrays[name]
        found: NDArray[Any] = array[rows]
        _let_go(array)
        return found

    def _map(self, name: str, width: int, dtype: DTypeLike) -> np.memmap[Any, Any]:
        path = self._folder / f"{name}.bin"
        fresh = self._state is None
        return np.memmap(path, dtype, "w+" if fresh else "r+", shape=(self._rows, width))

    def _read_state(self) -> dict[str, Any] | None:
        """What is known of the files there; None where they are absent or of another identity."""
        path = self._folder / "rows.json"
        whole = path.is_file() and all((self._folder / f"{name}.bin").is_file() for name in self._columns)
        state: dict[str, Any] | None = read_json(path) if whole else None
        return state if state and state["identity"] == self._identity else None

    def _note(self, batches: int, *, finished: bool) -> None:
        """Write down how far the arrays are filled, after they are on disk."""
        for array in self._arrays.values():
            array.flush()
            _let_go(array)
        self._state = {"identity": self._identity, "batches": batches, "finished": finished}
        write_json(self._folder / "rows.json", self._state)


def _let_go(array: np.memmap[Any, Any]) -> None:
    """Take a mapped file out of the process's memory; the system keeps what it wants of it, and writes the rest."""
    if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
        array._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
