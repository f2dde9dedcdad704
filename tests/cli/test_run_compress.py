"""`autoglm run` with a section `compress`: the smaller bundle, which one is the result, report, resumption."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from command_line import autoglm
from openautoglm.api import AutoTrainer
from openautoglm.core.files import read_json
from openautoglm.models.bundle import open_bundle
from openautoglm.pipeline.compressing import measure as measuring
from openautoglm.pipeline.compressing import run as running
from openautoglm.pipeline.context import Run
from openautoglm.pipeline.stages.order import run_stages

pytestmark = pytest.mark.slow
FEW: dict[str, Any] = {"cases": 4, "texts": 4, "calibration": 8, "metric": "perplexity",
                       "evaluate": {"metrics": ["bleu"]}}
RTN = {"method": "rtn", "bits": 8, "group": 0}


@pytest.fixture(autouse=True)
def _weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speed and memory are measured by the tests of ``autoglm compress``; here they are given."""
    monkeypatch.setattr(measuring, "weigh", lambda folder, *_: {
        "peak_bytes": 10**7, "weight_bytes": 10**5, "cache_bytes": 10**4, "load_s": 0.1, "tokens_per_s_1": 50.0,
        "tokens_per_s_8": 200.0, "target": "native"})


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, with its task."""
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def run_of(folder: Path, *, to: str | None = None, **section: Any) -> Run:
    """The run of the task with a section `compress`; data files of a copy are other files, so nothing is cleaned."""
    task = yaml.safe_load((folder / "task.yaml").read_text())
    task |= {"compress": {**FEW, **section}, "export": {"to": to} if to else {}}
    (folder / "task.yaml").write_text(yaml.safe_dump(task, sort_keys=False))
    return Run.of(folder / "task.yaml")


def test_the_compressed_bundle_is_the_result_where_it_meets_its_targets(folder: Path) -> None:
    run = run_of(folder, to="copy.zip", recipe=[RTN, "kv"], quality=0.5)
    assert run.result == run.bundle
    done = run_stages(run)
    assert [name for name, what in done.items() if what == "ran"] == ["compress", "export", "report"]
    assert run.result == run.compressed
    small, whole = open_bundle(run.compressed), open_bundle(run.bundle)
    facts = small.card.scores["compression"]
    assert (facts["missed"], facts["cases"]) == ([], 4)
    assert facts == run.state.finished("compress")["facts"]  # type: ignore[index]
    assert small.card.recipe["decoding"] == whole.card.recipe["decoding"]
    assert [step["method"] for step in small.card.recipe["compress"]] == ["rtn", "kv"]
    assert (whole.path / "model.safetensors").is_file()
    assert open_bundle(folder / "copy.zip").card.files == small.card.files
    page = run.report.read_text()
    for said in ("Compression", "The compressed bundle, compressed/, is the result", "KL to the trained model",
                 "tokens/s, batch 1", "perplexity"):
        assert said in page, said
    assert read_json(folder / "runs/tiny/report.json")["compression"]["kept"] == facts["kept"]
    trainer = AutoTrainer(config_path=folder / "task.yaml")
    assert open_bundle(trainer.export(folder / "best_model")).card.files == small.card.files
    assert trainer.run() == run.compressed
    assert trainer.compress() == facts
    assert not (folder / "runs/tiny/compressed.work").exists()


def test_a_missed_target_leaves_the_trained_bundle_the_result(folder: Path) -> None:
    run = run_of(folder, recipe=[RTN], quality=0.5, tokens_per_s=1e9)
    run_stages(run)
    assert run.result == run.bundle
    assert open_bundle(run.compressed).card.scores["compression"]["missed"]
    assert "The trained bundle, bundle/, is the result" in run.report.read_text()
    done = autoglm("run", folder / "task.yaml")
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("skipped") == 10
    assert "missed: 50 tokens/s" in done.stdout


def test_where_no_candidate_fits_the_run_goes_on_and_tells(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(folder, recipe="auto", quality=0.5, tokens_per_s=1e9)
    real = running.candidates
    monkeypatch.setattr(running, "candidates", lambda *given: list(real(*given))[:2])
    run_stages(run)
    assert run.result == run.bundle
    assert not run.compressed.exists()
    facts = run.state.finished("compress")["facts"]  # type: ignore[index]
    assert [one["name"] for one in facts["choice"]["tried"]] == ["int8", "int4 rtn"]
    page = run.report.read_text()
    assert "What was tried" in page
    assert "none of 2 candidates" in page
    assert set(run_stages(run).values()) == {"skipped"}
    easier = run_of(folder, recipe="auto", quality=0.5, bundle_size=10**6)
    monkeypatch.setattr(running, "measure", lambda *_: pytest.fail("it was measured again"))
    run_stages(easier)  # other targets, the same candidates: nothing is made or measured again
    assert easier.result == easier.compressed
    assert "Pareto" in easier.report.read_text()


def test_a_stopped_stage_goes_on_and_a_section_taken_out_removes_its_bundle(
        folder: Path, stopped: Callable[[Callable[[], Any]], list[str]]) -> None:
    run = run_of(folder, recipe=[RTN], quality=0.5)
    steps = stopped(lambda: run_stages(run))
    assert run_stages(run)["compress"] == "ran"
    assert steps == ["rtn"]
    task = yaml.safe_load((folder / "task.yaml").read_text())
    del task["compress"]
    (folder / "task.yaml").write_text(yaml.safe_dump(task, sort_keys=False))
    without = Run.of(folder / "task.yaml")
    run_stages(without)
    assert not without.compressed.exists()
    assert "Compression" not in without.report.read_text()
