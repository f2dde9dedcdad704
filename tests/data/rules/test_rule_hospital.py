"""What rules find in a dirty table with known faults: letters turned to ``x`` in 509 of its 19,000 cells."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from openautoglm.core.values import Example, Origin
from openautoglm.data.rules.base import Rule
from openautoglm.data.rules.outliers import Outliers
from openautoglm.data.rules.rare import Rare
from openautoglm.data.rules.values import Values

pytestmark = pytest.mark.data

Build = Callable[[str], Rule]
SHAPES = {"ProviderNumber": r"\d{5}", "ZipCode": r"\d{5}", "PhoneNumber": r"\d{10}", "Score": r"(\d{1,3}%)?",
          "Sample": r"(\d+ patients)?", "State": "a[kl]", "EmergencyService": "yes|no"}
SETS = ("HospitalType", "HospitalOwner", "Condition")
CATEGORIES = ("HospitalName", "Address1", "City", "CountyName", "MeasureCode", "MeasureName", "Stateavg")


class Hospital:
    """The dirty table by cells, and which of them are wrong by its ground truth (509 of 19,000)."""

    def __init__(self, folder: Path) -> None:
        with (folder / "hospital.csv").open(encoding="utf-8", newline="") as file:
            self.rows = list(csv.DictReader(file))
        with (folder / "hospital_clean.csv").open(encoding="utf-8", newline="") as file:
            self.truth = {(row["tid"], row["attribute"]): row["correct_val"] for row in csv.DictReader(file)}
        self.wrong = {(row["tid"], column) for row in self.rows for column in row
                      if column != "tid" and row[column] != self.truth[row["tid"], column]}

    def flagged(self, column: str, rule: Rule) -> set[tuple[str, str]]:
        cells = [Example("", "", Origin(row["tid"], 1), ((column, row[column]),)) for row in self.rows]
        rule = rule.fit(cells)
        return {(cell.origin.file, column) for cell in cells if rule.apply(cell) is not cell}

    def score(self, columns: tuple[str, ...], build: Build) -> tuple[float, float]:
        """Return precision, and recall within `columns`."""
        found = set[tuple[str, str]]().union(*(self.flagged(column, build(column)) for column in columns))
        wrong = {cell for cell in self.wrong if cell[1] in columns}
        return len(found & wrong) / len(found), len(found & wrong) / len(wrong)


@pytest.fixture(scope="module")
def hospital(shared_data: Path) -> Hospital:
    return Hospital(shared_data / "dirty-hospital")


def test_shapes(hospital):
    assert len(hospital.wrong) == 509

    def build(column: str) -> Rule:
        return Values(patterns={column: SHAPES[column]})
    assert hospital.score(tuple(SHAPES), build) == (1.0, 1.0)


def test_value_sets(hospital):
    def build(column: str) -> Rule:
        allowed = {value for (_, name), value in hospital.truth.items() if name == column}
        return Values(allowed={column: sorted(allowed)})
    assert hospital.score(SETS, build) == (1.0, 1.0)


def test_rare_values(hospital):
    """Measured: precision 0.839, recall 1.0 on seven categorical columns, given only their names."""
    precision, recall = hospital.score(CATEGORIES, lambda column: Rare(fields=(column,)))
    assert precision > 0.8
    assert recall > 0.98


def test_outliers_are_the_wrong_tool_for_slips(hospital):
    """Measured: z-score finds 17 of 23 wrong scores at precision 0.55; few slips make a far number."""
    precision, recall = hospital.score(("Score",), lambda column: Outliers(fields=(column,), method="zscore"))
    assert precision > 0.5
    assert recall > 0.7
