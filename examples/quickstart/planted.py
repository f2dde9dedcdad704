"""Compare what cleaning found with what was planted: precision and recall by kind of fault."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import NamedTuple

RULES = {"duplicate": "exact_duplicate", "near_duplicate": "near_duplicate", "null": "nulls",
         "outlier": "outliers", "omission": "containment", "leak": "leak"}
"""The rule or check that removes each kind of fault."""


class Score(NamedTuple):
    """How well one kind of fault was found."""

    fault: str
    planted: int
    found: int
    right: int

    @property
    def precision(self) -> float:
        """The share of what was found that had been planted."""
        return self.right / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        """The share of what had been planted that was found."""
        return self.right / self.planted if self.planted else 1.0


def score(data: Path, cleaned: Path) -> list[Score]:
    """Score every kind of fault.

    Removed faults count by line. A repaired fault is right when the text is what it was before the fault was
    planted; whatever else cleaning changed in a text counts as found, but not as right.

    Args:
        data: the folder that make_data.py wrote.
        cleaned: the folder that `autoglm clean` wrote, ``RUN/data``.
    """
    faults = json.loads((data / "planted.json").read_text(encoding="utf-8"))["faults"]
    lines = {fault: {place["line"] for place in places} for fault, places in faults.items()}
    scores = []
    dropped = _lines(cleaned / "dropped.jsonl")
    for fault, rule in RULES.items():
        found = {line for line, row in dropped.items() if row["rule"] == rule}
        scores.append(Score(fault, len(lines[fault]), len(found), len(found & lines[fault])))
    rejected = set(_lines(cleaned / "rejected.jsonl"))
    scores.append(Score("bad_row", len(lines["bad_row"]), len(rejected), len(rejected & lines["bad_row"])))
    before, after = _reports(data / "train.csv", rejected), _lines(cleaned / "train.jsonl")
    changed = {line for line, row in after.items() if row["target"] != before[line]}
    spaced = {line for line in changed if " ".join(before[line].split()) == after[line]["target"]}
    for fault, found in (("double_space", spaced), ("mojibake", changed - spaced)):
        truth = {place["line"]: place["report"] for place in faults[fault]}
        right = sum(after[line]["target"] == truth[line] for line in found & truth.keys())
        scores.append(Score(fault, len(truth), len(found), right))
    return scores


def _lines(path: Path) -> dict[int, dict[str, str]]:
    """The rows of a file of JSON lines that come from train.csv, by their line there."""
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line)
    return {int(row["line"]): row for row in rows if row["file"].endswith("train.csv")}


def _reports(path: Path, rejected: set[int]) -> dict[int, str]:
    """The reports as they stand in train.csv, by line; every row of it is one line."""
    lines = path.read_bytes().rstrip(b"\n").split(b"\n")
    readable = [number for number in range(2, len(lines) + 1) if number not in rejected]
    rows = csv.reader(lines[number - 1].decode() for number in readable)
    return {number: row[-1] for number, row in zip(readable, rows, strict=True)}
