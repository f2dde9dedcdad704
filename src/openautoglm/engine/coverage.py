"""Candidates by how much of the record they mention."""

from __future__ import annotations

from collections.abc import Sequence

from openautoglm.text.coverage import coverage


def best_covered(fields: Sequence[tuple[str, str]], texts: Sequence[str]) -> list[int]:
    """Return the numbers of the texts that mention most of the fields' values, in their order."""
    shares = [coverage(fields, text) for text in texts]
    most = max(shares)
    return [number for number, share in enumerate(shares) if share == most]
