"""The benchmark of freezing: a cell once, figures of one process side by side, ratios within a round."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import ModuleType

import pytest

from openautoglm.train.states import NAME as FROZEN

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import freeze as module

    return module


def test_a_cell_is_done_once_and_ratios_are_of_one_round(bench: ModuleType, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []
    stops = iter([7])

    def process(way: str, _options: argparse.Namespace) -> dict[str, object]:
        if len(done) == 7 and next(stops, None):
            raise KeyboardInterrupt
        done.append(way)
        slow = 10.0 if len(done) > 5 else 1.0  # the second round, on a slower machine
        seconds = slow * (0.5 if way == "frozen" else 1.0)
        return {"seconds": [seconds, seconds], "first_s": 2 * seconds, "peak_bytes": len(way) << 20}

    monkeypatch.setattr(bench, "process", process)
    given = ["--rounds", "2", "--threads", "1", "--out", str(tmp_path / "rows.jsonl")]
    with pytest.raises(KeyboardInterrupt):
        bench.main(given)
    bench.main(given)
    assert done == 2 * ["imports", *bench.WAYS]
    assert "| frozen | 2.750 | 0.50 | 2.8 | 6 | 1.50 |" in capsys.readouterr().out


@pytest.mark.parametrize("way", ["full", "frozen, cached"])
def test_steps_are_those_of_training(bench: ModuleType, tmp_path: Path, way: str) -> None:
    options = argparse.Namespace(preset="micro", clock="cpu", examples=16, rows=4, steps=2)
    found = bench.steps(way, options, tmp_path)
    assert len(found["seconds"]) == 2
    assert min(found["first_s"], *found["seconds"]) > 0
    assert (tmp_path / FROZEN).is_dir() == (way == "frozen, cached")
