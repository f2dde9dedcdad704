"""The faults which the quickstart plants into rows, one small function each."""

from __future__ import annotations

import csv
import io
import random
from dataclasses import dataclass

from grammar import Record

NULLS = ("", "NULL", "N/A", "nan", "null")
UNITS = {"temperature": "°C", "vibration": "mm/s"}
IMPOSSIBLE = (("temperature", "-999"), ("temperature", "8888"), ("vibration", "655.3"))


@dataclass(frozen=True)
class Row:
    """One row of train.csv: the record, its report, the fault planted in it, the report without it."""

    record: Record
    report: str
    fault: str = ""
    truth: str = ""

    def encode(self) -> bytes:
        """Return the row as a line of CSV."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow([*self.record, self.report])
        return text.getvalue().encode()


def garble(text: str, dice: random.Random) -> str:
    """Read UTF-8 as if it were Windows-1252 or Latin-1."""
    try:
        return text.encode().decode(dice.choice(("cp1252", "latin-1")))
    except UnicodeDecodeError:
        return text.encode().decode("latin-1")


def widen(text: str, dice: random.Random) -> str:
    """Double some of the spaces."""
    words = text.split(" ")
    wide = set(dice.sample(range(1, len(words)), 2))
    return words[0] + "".join(("  " if at in wide else " ") + word for at, word in enumerate(words) if at)


def break_line(line: bytes, dice: random.Random) -> bytes:
    """Make a line unreadable: a cell too few or too many, a NUL byte, or bytes that are no UTF-8."""
    kind = dice.randrange(4)
    if kind == 0:
        return line.partition(b",")[2]
    if kind == 1:
        return line.rstrip(b"\n") + b",checked,twice\n"
    middle = len(line) // 2
    return line[:middle] + (b"\x00" if kind == 2 else b"\xff\xfe") + line[middle:]


def spoil(row: Row, fault: str, dice: random.Random) -> Row:
    """Plant a fault into a row."""
    record, report = row.record, row.report
    if fault == "mojibake":
        report = garble(report, dice)
    elif fault == "double_space":
        report = widen(report, dice)
    elif fault == "null":
        report = dice.choice(NULLS)
    elif fault == "omission":
        report = report.replace(record.machine, "the unit")
    elif fault == "outlier":
        name, value = dice.choice(IMPOSSIBLE)
        record = record._replace(**{name: value})
        report = report.replace(f"{getattr(row.record, name)} {UNITS[name]}", f"{value} {UNITS[name]}")
    return Row(record, report, fault, row.report)
