"""What is decided about every row: whether it stays, why not, and because of which other row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openautoglm.data.tables import scratch_array

KEPT, BY_RULE, EXACT, NEAR, LEAK = range(5)
NAMES = ("kept", "rule", "exact_duplicate", "near_duplicate", "leak")


class Verdicts:
    """A state and a partner for each row, in files mapped into memory (nine bytes a row)."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.rows = rows
        self.state: NDArray[np.uint8] = scratch_array(folder / "state", rows, np.uint8)
        self.partner: NDArray[np.int64] = scratch_array(folder / "partner", rows, np.int64)

    def drop(self, rows: NDArray[np.int64], state: int, partners: NDArray[np.int64]) -> None:
        """Decide that rows leave because of their partners; what was decided before stays."""
        undecided = self.state[rows] == KEPT
        rows, partners = rows[undecided], partners[undecided]
        self.state[rows] = state
        self.partner[rows] = partners
