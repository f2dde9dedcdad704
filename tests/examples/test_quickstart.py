"""The quickstart: its data is what planted.json says, and cleaning finds every kind of fault."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

HERE = Path(__file__).resolve().parents[2] / "examples" / "quickstart"
MODULES = ("grammar", "faults", "make_data", "planted")


@pytest.fixture(scope="module")
def quickstart() -> Iterator[SimpleNamespace]:
    """The modules of the example, imported as its scripts import them."""
    sys.path.insert(0, str(HERE))
    loaded: dict[str, ModuleType] = {name: importlib.import_module(name) for name in MODULES}
    yield SimpleNamespace(**loaded)
    sys.path.remove(str(HERE))
    for name in MODULES:
        sys.modules.pop(name)


@pytest.fixture(scope="module")
def data(quickstart: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart")
    quickstart.make_data.make(folder, seed=3, scale=0.2)
    return folder


def planted(data: Path) -> dict[str, list[dict[str, object]]]:
    return json.loads((data / "planted.json").read_text(encoding="utf-8"))["faults"]


def rows(path: Path) -> dict[int, list[str]]:
    """The readable rows of a CSV file by line; every row of the quickstart is one line."""
    found = {}
    for number, line in enumerate(path.read_bytes().rstrip(b"\n").split(b"\n"), start=1):
        try:
            cells = next(csv.reader([line.decode()]))
        except (UnicodeDecodeError, csv.Error):
            continue
        if len(cells) == 10 and b"\0" not in line:
            found[number] = cells
    return found


def test_the_same_seed_gives_the_same_bytes(quickstart: SimpleNamespace, data: Path, tmp_path: Path) -> None:
    quickstart.make_data.make(tmp_path, seed=3, scale=0.2)
    for name in ("train.csv", "valid.csv", "test.csv", "planted.json"):
        assert (tmp_path / name).read_bytes() == (data / name).read_bytes()


def test_every_kind_of_fault_is_planted_at_its_line(data: Path) -> None:
    faults, train = planted(data), rows(data / "train.csv")
    test = rows(data / "test.csv").values()
    lines = {fault: [int(str(place["line"])) for place in places] for fault, places in faults.items()}
    assert all(lines.values())
    every = Counter(line for numbers in lines.values() for line in numbers)
    assert max(every.values()) == 1
    assert not set(lines["bad_row"]) & train.keys()
    assert all("  " in train[line][-1] for line in lines["double_space"])
    assert all(train[line][0] not in train[line][-1] for line in lines["omission"])
    assert all(len(train[line][-1]) < 5 for line in lines["null"])
    readings = [(float(train[line][5]), float(train[line][6])) for line in lines["outlier"]]
    assert all(heat in (-999, 8888) or vibration > 600 for heat, vibration in readings)
    once = [row for line, row in train.items() if line not in lines["duplicate"]]
    assert all(train[line] in once for line in lines["duplicate"])
    shared = [(tuple(row[:9]), row[9]) for row in test]
    sources, targets = {source for source, _ in shared}, {target for _, target in shared}
    assert all(tuple(train[line][:9]) in sources or train[line][9] in targets for line in lines["leak"])
    for place in faults["mojibake"]:
        garbled = train[int(str(place["line"]))][-1]
        assert garbled != place["report"]
        assert "Â" in garbled or "Ã" in garbled


def test_rows_without_a_fault_repeat_nothing(data: Path) -> None:
    faulty = {place["line"] for places in planted(data).values() for place in places}
    clean = [row for line, row in rows(data / "train.csv").items() if line not in faulty and line > 1]
    targets = Counter(row[-1] for row in clean)
    assert len(clean) > 1000
    assert max(targets.values()) == 1
    assert not targets.keys() & {row[-1] for row in rows(data / "test.csv").values()}


def test_a_report_states_every_fact_of_its_record(quickstart: SimpleNamespace, data: Path) -> None:
    for line, row in rows(data / "test.csv").items():
        if line > 1:
            record = quickstart.grammar.Record(*row[:-1])
            assert all(fact in row[-1] for fact in (record.machine, record.site, record.shift, record.output,
                                                    record.temperature, record.vibration))
            assert record.alarm == "none" or record.alarm in row[-1].lower()
            assert record.action in ("none", "open") or record.action in row[-1]


def test_without_faults_nothing_is_planted(quickstart: SimpleNamespace, tmp_path: Path) -> None:
    faults = quickstart.make_data.make(tmp_path, scale=0.02, faulty=False)
    assert not any(faults.values())


@pytest.mark.slow
def test_cleaning_finds_the_planted_faults(quickstart: SimpleNamespace, data: Path, tmp_path: Path) -> None:
    from openautoglm.data.clean import clean
    from openautoglm.pipeline.task import load_task

    task = load_task(HERE / "task.yaml", {"QUICKSTART_DATA": str(data), "QUICKSTART_RUN": str(tmp_path)})
    clean(task.data, task.clean, tmp_path / "data", base=HERE)
    scores = {score.fault: score for score in quickstart.planted.score(data, tmp_path / "data")}
    assert set(scores) == set(quickstart.make_data.FAULTS)
    for score in scores.values():
        assert score.planted > 0
        assert score.precision >= 0.95, score
        assert score.recall >= 0.95, score
