"""Rows of frozen models on disk: what is read is what was computed, and nothing of the files stays in memory."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from train_models import random_store

from openautoglm.data.pack import Batch
from openautoglm.train.rows import RowFiles, TargetRows

WIDTH = 4096
STORE = random_store(sources=16, references=4)
ROWS = TargetRows(STORE)


def opened(folder: Path) -> RowFiles:
    return RowFiles(folder, {"of": "a test"}, {"wide": (WIDTH, np.float32)}, ROWS.count, limit_bytes=2**30,
                    where="here")


def values(batch: Batch) -> dict[str, np.ndarray]:
    return {"wide": np.repeat(batch.targets[:, None], WIDTH, 1).astype(np.float32)}


def resident_bytes(path: Path) -> int:
    """How much of a file this process holds mapped."""
    found, mine = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.split()[0] and ":" not in line.split()[0]:
            mine = line.endswith(str(path))
        elif mine and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/smaps")
def test_nothing_of_the_files_stays_in_memory(tmp_path: Path) -> None:
    files = opened(tmp_path)
    files.fill(STORE, values, lambda batch: ROWS(batch.targets), "filling")
    file = tmp_path / "wide.bin"
    assert file.stat().st_size == ROWS.count * WIDTH * 4
    assert resident_bytes(file) == 0
    wanted = np.arange(ROWS.count)
    found = files.read("wide", wanted)
    assert resident_bytes(file) == 0
    again = opened(tmp_path).read("wide", wanted[::-1])
    np.testing.assert_array_equal(found, again[::-1])
    targets = [at for begin, length, prompt in zip(STORE.offsets, STORE.lengths, STORE.prompts, strict=False)
               for at in range(begin + prompt, begin + length)]
    np.testing.assert_array_equal(found[:, 0], np.array(targets, np.float32))
