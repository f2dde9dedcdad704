"""Make the quickstart's data: monitoring records and shift reports, with faults planted and written down.

    python examples/quickstart/make_data.py FOLDER [--seed 7] [--scale 0.1] [--no-faults]

writes train.csv, valid.csv and test.csv, and planted.json, which names every planted fault by kind and line
of train.csv. Only the standard library is needed.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from faults import Row, break_line, spoil
from grammar import SHIFTS, Record, draw_record, write_report

COLUMNS = (*Record._fields, "report")
RECORDS = {"train": 2500, "valid": 100, "test": 150}
FAULTS = {"duplicate": 160, "near_duplicate": 80, "mojibake": 140, "double_space": 400, "null": 80,
          "outlier": 60, "omission": 40, "leak": 80, "bad_row": 36}
REPAIRED = ("mojibake", "double_space")


class Maker:
    """Draws records and reports that never repeat by chance, so that every repetition is a planted one."""

    def __init__(self, seed: int, scale: float) -> None:
        self.dice = random.Random(seed)
        self.scale = scale
        self.records: set[Record] = set()
        self._reports: set[str] = set()

    def record(self) -> Record:
        """Draw a record that was not drawn before."""
        while True:
            record = draw_record(self.dice)
            if record not in self.records:
                self.records.add(record)
                return record

    def reports(self, record: Record, count: int, unlike: tuple[str, ...] = ()) -> list[str]:
        """Write `count` reports of one record which differ clearly from each other and from `unlike`."""
        found: list[str] = []
        for _ in range(1000):
            report = write_report(record, self.dice)
            clear = all(overlap(report, other) < 0.6 for other in (*found, *unlike))
            if clear and report not in self._reports:
                self._reports.add(report)
                found.append(report)
            if len(found) == count:
                return found
        raise RuntimeError(f"the grammar has fewer than {count} clearly different reports of {record}")

    def split(self, name: str) -> list[Row]:
        """Make the rows of one split: two or three references a record."""
        rows = []
        for _ in range(round(RECORDS[name] * self.scale)):
            record = self.record()
            count = self.dice.choice((2, 3)) if name == "train" else 3
            rows += [Row(record, report) for report in self.reports(record, count)]
        return rows


def overlap(one: str, other: str) -> float:
    """Return the Jaccard similarity of two texts' pairs of neighbouring words."""
    first, second = (set(pairwise(text.split())) for text in (one, other))
    return len(first & second) / len(first | second)


def plant(rows: list[Row], test: list[Row], maker: Maker) -> list[Row]:
    """Plant all faults: some change rows, some add them; then shuffle."""
    dice = maker.dice
    counts = {fault: round(count * maker.scale) for fault, count in FAULTS.items()}
    picked = dice.sample(range(len(rows)), sum(counts.values()))
    picks: dict[str, list[int]] = {}
    for fault, count in counts.items():
        picks[fault], picked = picked[:count], picked[count:]
    planted = list(rows)
    for fault in ("mojibake", "double_space", "null", "outlier", "omission", "bad_row"):
        for at in picks[fault]:
            planted[at] = spoil(rows[at], fault, dice)
    planted += [replace(rows[at], fault="duplicate") for at in picks["duplicate"]]
    for at in picks["near_duplicate"]:
        nearly = rows[at].report.removesuffix(".") + dice.choice((" again.", " today.", " so far."))
        planted.append(Row(rows[at].record, nearly, "near_duplicate", rows[at].report))
    for leaked in dice.sample(test, counts["leak"]):
        planted.append(_leak(leaked, test, maker))
    dice.shuffle(planted)
    return _later_is_the_copy(planted)


def _leak(leaked: Row, test: list[Row], maker: Maker) -> Row:
    """A train row that shares its record, or its report, with the test split."""
    if maker.dice.random() < 0.5:
        known = tuple(row.report for row in test if row.record == leaked.record)
        return Row(leaked.record, maker.reports(leaked.record, 1, known)[0], "leak")
    record = leaked.record
    while record in maker.records:
        vibration = f"{maker.dice.randint(2, 14) / 2:.1f}"
        record = record._replace(vibration=vibration, shift=maker.dice.choice(SHIFTS))
    maker.records.add(record)
    return Row(record, leaked.report, "leak")


def _later_is_the_copy(rows: list[Row]) -> list[Row]:
    """Of two equal or nearly equal rows the second is the duplicate, whichever was planted."""
    first: dict[tuple[Record, str], int] = {}
    for at, row in enumerate(rows):
        original = row.truth if row.fault == "near_duplicate" else row.report
        earlier = first.setdefault((row.record, original), at)
        if earlier != at and not row.fault:
            rows[at] = replace(row, fault=rows[earlier].fault)
            rows[earlier] = replace(rows[earlier], fault="")
    return rows


def write_split(path: Path, rows: list[Row], breaking: random.Random | None = None) -> None:
    """Write a CSV file with a header line; `breaking` makes the rows marked as bad unreadable."""
    lines = [",".join(COLUMNS).encode() + b"\n"]
    for row in rows:
        bad = breaking is not None and row.fault == "bad_row"
        lines.append(break_line(row.encode(), breaking) if bad else row.encode())
    path.write_bytes(b"".join(lines))


def make(folder: Path, seed: int = 7, scale: float = 1.0,
         faulty: bool = True) -> dict[str, list[dict[str, object]]]:
    """Write the three splits and planted.json into `folder`; return the planted faults by kind.

    `scale` multiplies the numbers of records and faults; without `faulty` nothing is planted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    maker = Maker(seed, scale)
    test, valid, train = maker.split("test"), maker.split("valid"), maker.split("train")
    if faulty:
        train = plant(train, test, maker)
    faults: dict[str, list[dict[str, object]]] = {fault: [] for fault in FAULTS}
    for line, row in enumerate(train, start=2):
        if row.fault:
            known = {"report": row.truth} if row.fault in REPAIRED else {}
            faults[row.fault].append({"line": line, **known})
    write_split(folder / "train.csv", train, random.Random(seed))
    write_split(folder / "valid.csv", valid)
    write_split(folder / "test.csv", test)
    rows = {"train": len(train), "valid": len(valid), "test": len(test)}
    facts = json.dumps({"seed": seed, "rows": rows, "faults": faults}, ensure_ascii=False, indent=1)
    (folder / "planted.json").write_text(facts + "\n", encoding="utf-8")
    return faults


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--scale", type=float, default=1.0, help="factor of records and faults")
    parser.add_argument("--no-faults", action="store_true", help="plant nothing")
    chosen = parser.parse_args()
    for fault_name, places in make(chosen.folder, chosen.seed, chosen.scale, not chosen.no_faults).items():
        print(f"{fault_name}: {len(places)} planted")
