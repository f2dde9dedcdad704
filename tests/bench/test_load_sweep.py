"""A sweep: its points, what is kept of it, knees and recommendations; the runs are those of a scripted child."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from openautoglm.bench.settings import Arrivals, Judgement, LoadSettings, Prompts
from openautoglm.bench.sweep.choose import Run, best_run, curves, knee, recommend
from openautoglm.bench.sweep.page import render, summary, write_sweep
from openautoglm.bench.sweep.points import Axes, Loads, Point, SweepSettings
from openautoglm.bench.sweep.run import failures, run_sweep
from openautoglm.bench.sweep.store import Store
from openautoglm.core.errors import LoadError

CHILD = Path(__file__).parent / "scripted_child.py"


def run_of(point: Point, amount: float, qps: float, latency_ms: float, **changed: Any) -> Run:
    figures = {"completed": 100, "failed": 0, "request_throughput": qps, "output_throughput": 10 * qps,
               "mean_e2el_ms": latency_ms, "p99_e2el_ms": 2 * latency_ms, "p99_ttft_ms": latency_ms / 2,
               "p99_itl_ms": 1.0, "server": {"cpu_cores": 1.5, "rss_bytes_max": 10**8, "kv_use_max": 0.5,
                                             "running_mean": 3.0}, "generator": {"saturated": False}, "stalls": [],
               "warnings": [], **changed}
    return Run(point, amount, figures)


SMALL, LARGE = Point(max_batch=1), Point(max_batch=8)
RUNS = [run_of(SMALL, 1, 10, 100), run_of(SMALL, 2, 10.5, 190), run_of(SMALL, 4, 10.6, 380),
        run_of(LARGE, 1, 10, 100), run_of(LARGE, 2, 18, 110), run_of(LARGE, 4, 30, 133), run_of(LARGE, 8, 33, 240),
        run_of(LARGE, 16, 33.2, 480)]


def settings(**load: Any) -> SweepSettings:
    return SweepSettings(axes=Axes(max_batch=(1, 8)), loads=Loads(clients=(1, 2, 4)), load=LoadSettings(
        arrivals=Arrivals(num_prompts=20, duration_s=1.0), **load))


def test_points_are_all_combinations_that_fit() -> None:
    axes = Axes(max_batch=(4, 64), max_batch_tokens=(32, 128), format=("stored", "int4:64", "stored"),
                max_wait=(0, 0.02))
    points = axes.points()
    assert len(points) == len(set(points)) == 12  # a batch of 64 does not fit 32 rows
    assert points == axes.points()
    point = Point(max_batch=4, max_batch_tokens=32, threads=2, format="int4:64", max_wait=0.02)
    assert point in Axes(max_batch=(4,), max_batch_tokens=(32,), threads=(2,), format=("int4:64",),
                         max_wait=(0.02,)).points()
    program, engine = point.program("native"), point.engine()
    assert (program.threads, program.max_rows, program.max_wanted) == (2, 32, 4)
    assert program.quantise is not None
    assert (program.quantise.format, program.quantise.group) == ("int4", 64)
    assert (engine.max_batch, engine.max_batch_tokens, engine.min_batch, engine.max_wait) == (4, 32, 4, 0.02)
    assert Point().engine().min_batch == 1
    assert Point(format="bf16").program().dtype == "bf16"


@pytest.mark.parametrize("wrong", [{"format": "int3"}, {"format": "int4:7"}, {"max_batch": 600}, {"max_wait": -1}],
                         ids=["format", "group", "batch", "wait"])
def test_points_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Point.model_validate(wrong)


def test_loads_have_random_numbers_of_their_own() -> None:
    loads = Loads(rates=(4, 2.5, 4))
    assert loads.amounts() == (2.5, 4)
    base = LoadSettings(seed=3)
    assert [loads.apply(base, amount).arrivals.request_rate for amount in loads.amounts()] == [2.5, 4]
    assert len({loads.apply(base, amount).seed for amount in loads.amounts()}) == 2
    assert Loads(clients=(3,)).apply(base, 3).arrivals.order == "closed"
    for wrong in ({}, {"clients": (1,), "rates": (2,)}, {"clients": (0,)}):
        with pytest.raises(ValidationError):
            Loads.model_validate(wrong)


def test_the_knee_is_where_power_is_largest() -> None:
    found = {curve.point: curve for curve in curves(RUNS)}
    assert found[SMALL].knee == 0
    assert found[LARGE].runs[found[LARGE].knee or 0].amount == 4
    assert knee([]) is None
    assert knee([run_of(SMALL, 1, 0, 0)]) is None


def test_without_bounds_the_fastest_knee_is_recommended() -> None:
    best = best_run(curves(RUNS), {})
    assert best is not None
    assert (best.point, best.amount) == (LARGE, 4)
    axes = Axes(max_batch=(1, 8))
    assert recommend(curves(RUNS), {}, axes, "clients") == (
        "Use max_batch 8: the highest throughput at its knee, 30.00 requests/s and 300 tokens/s at 4 clients with p99 "
        "266 ms.")


def test_bounds_decide_and_equal_throughputs_go_by_latency() -> None:
    best = best_run(curves(RUNS), {"e2el": 700})
    assert best is not None
    assert (best.point, best.amount) == (LARGE, 8)  # 33.2 is no better than 33, and slower
    best = best_run(curves(RUNS), {"e2el": 250, "ttft": 60})
    assert best is not None
    assert (best.point, best.amount) == (LARGE, 2)
    axes = Axes(max_batch=(1, 8))
    assert "No setting keeps p99 within e2el:10 ms" in recommend(curves(RUNS), {"e2el": 10}, axes, "clients")
    assert "No run has finished" in recommend([], {}, axes, "clients")


@pytest.mark.parametrize("fault", [{"failed": 9}, {"generator": {"saturated": True}}, {"stalls": [{"seconds": 3}]}],
                         ids=["failures", "saturated", "stalled"])
def test_what_is_not_sound_is_not_recommended(fault: dict[str, Any]) -> None:
    runs = [run_of(SMALL, 1, 10, 100), run_of(LARGE, 1, 50, 100, **fault)]
    best = best_run(curves(runs), {})
    assert best is not None
    assert best.point == SMALL
    advice = recommend(curves(runs[1:]), {}, Axes(), "clients")
    assert ("nothing can be recommended" in advice) if "failed" in fault else ("measure again" in advice)


def test_a_rounded_format_comes_with_a_warning() -> None:
    runs, axes = [run_of(Point(format="int4:64"), 2, 10, 100)], Axes(format=("int4:64", "stored"))
    assert "autoglm evaluate --quantise int4" in recommend(curves(runs), {}, axes, "clients")


def test_the_page_marks_knees_and_the_recommendation(tmp_path: Path) -> None:
    failed = [{"point": {"max_batch": 9}, "amount": 1, "error": "<b>killed</b>"}]
    made = settings()
    html = render(curves(RUNS), failed, made, "Use it.", "small")
    assert html.count('class="ring"') == 6  # two knees on three charts
    assert "&lt;b&gt;killed" in html
    facts = summary(RUNS, failed, made)
    assert facts["recommended"] == {"point": LARGE.model_dump(mode="json"), "amount": 4}
    assert [curve["knee"] for curve in facts["curves"]] == [1, 4]
    for path in write_sweep(tmp_path, RUNS, failed, made, "small"):
        assert path.stat().st_size > 1000


def sweep_with(tmp_path: Path, *how: str, fresh: bool = False, made: SweepSettings | None = None
               ) -> Sequence[Run]:
    """A sweep whose child does as `how` says; it writes down each job that it was given."""
    model = tmp_path / "model"
    if not model.exists():
        model.mkdir()
        (model / "model.safetensors").write_bytes(b"x")
    command = (sys.executable, str(CHILD), str(tmp_path / "jobs"), *how)
    return run_sweep(model, made or settings(), tmp_path / "out", fresh=fresh, command=command)


def jobs(tmp_path: Path) -> list[list[float]]:
    """The loads of each child that was started."""
    return [json.loads(line) for line in (tmp_path / "jobs").read_text().splitlines()]


def test_finished_runs_are_not_made_again(tmp_path: Path) -> None:
    first = sweep_with(tmp_path)
    assert [(run.point.max_batch, run.amount, run.qps) for run in first] == [
        (1, 1, 1), (1, 2, 2), (1, 4, 4), (8, 1, 8), (8, 2, 16), (8, 4, 32)]
    assert jobs(tmp_path) == [[1, 2, 4], [1, 2, 4]]
    assert sweep_with(tmp_path) == first
    wider = SweepSettings(axes=Axes(max_batch=(1, 8, 16)), loads=Loads(clients=(1, 2, 4, 8)), load=settings().load)
    assert len(sweep_with(tmp_path, made=wider)) == 12
    assert jobs(tmp_path)[2:] == [[8], [8], [1, 2, 4, 8]]
    sweep_with(tmp_path, fresh=True)
    assert jobs(tmp_path)[5:] == [[1, 2, 4], [1, 2, 4]]


def test_another_load_is_another_sweep(tmp_path: Path) -> None:
    sweep_with(tmp_path)
    with pytest.raises(LoadError, match="another model, machine or load"):
        sweep_with(tmp_path, made=settings(prompts=Prompts(input_len=9)))
    (tmp_path / "model" / "model.safetensors").write_bytes(b"xy")
    with pytest.raises(LoadError, match="another model, machine or load"):
        run_sweep(tmp_path / "model", settings(), tmp_path / "out")


@pytest.mark.parametrize(("how", "says"), [
    ("error", "cannot be loaded so"), ("die", "out of luck"), ("deaf", "ended before it was done")], ids=str)
def test_a_child_that_fails_costs_its_point_and_is_tried_again(tmp_path: Path, how: str, says: str) -> None:
    runs = sweep_with(tmp_path, how, "8", "2")  # from load 2 of max_batch 8 on
    assert [(run.point.max_batch, run.amount) for run in runs] == [(1, 1), (1, 2), (1, 4), (8, 1)]
    failed = failures(tmp_path / "out")
    assert [(one["point"]["max_batch"], one["amount"]) for one in failed] == [(8, 2), (8, 4)]
    assert all(says in one["error"] for one in failed)
    assert len(sweep_with(tmp_path)) == 6
    assert jobs(tmp_path)[2:] == [[2, 4]]
    assert failures(tmp_path / "out") == []


def test_prompts_of_a_data_set_get_a_process_each(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "x"}\n')
    sweep_with(tmp_path, made=settings(prompts=Prompts(dataset=(str(rows),))))
    assert jobs(tmp_path) == [[1], [2], [4], [1], [2], [4]]


@pytest.mark.slow
def test_a_silent_child_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openautoglm.bench.sweep.run._SLACK_S", 5.0)
    made = settings(judge=Judgement(timeout_s=0.1))
    quiet = made.model_copy(update={"load": made.load.model_copy(update={"arrivals": Arrivals(num_prompts=5)})})
    runs = sweep_with(tmp_path, "sleep", "8", "1", made=quiet)
    assert {run.point.max_batch for run in runs} == {1}
    assert len(failures(tmp_path / "out")) == 3


def test_a_line_that_was_cut_is_made_again(tmp_path: Path) -> None:
    sweep_with(tmp_path)
    path = tmp_path / "out" / "runs.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert len(sweep_with(tmp_path)) == 6
    assert jobs(tmp_path)[2:] == [[4]]
    path.write_bytes(whole.replace(b'"amount": 2', b'"amount" 2', 1))
    with pytest.raises(LoadError, match=r"runs\.jsonl:3.*is damaged"):
        sweep_with(tmp_path)


def test_a_store_keeps_what_it_was_given(tmp_path: Path) -> None:
    store = Store(tmp_path / "a" / "runs.jsonl", {"x": 1})
    store.add("k", {"amount": 2})
    store.add("bad", {"error": "no"})
    again = Store(tmp_path / "a" / "runs.jsonl", {"x": 1})
    assert again.runs == {"k": {"amount": 2}, "bad": {"error": "no"}}
    assert again.finished("k")
    assert not again.finished("bad")
    assert not again.finished("other")


@pytest.mark.slow
def test_an_interrupted_sweep_ends_its_child_and_goes_on(tmp_path: Path) -> None:
    """Ctrl-C while the second run is made: the first is kept, the child is gone, the next call makes the rest."""
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import test_load_sweep as t\n"
        "t.sweep_with(Path(sys.argv[2]), 'sleep', '1', '2')")
    source = Path(__file__).resolve().parents[2] / "src"
    child = subprocess.Popen([sys.executable, "-c", program, str(CHILD.parent), str(tmp_path)], start_new_session=True,
                             stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(source)})
    sleeper = tmp_path / "jobs.pid"
    until = time.monotonic() + 60
    while not sleeper.is_file() and time.monotonic() < until:
        time.sleep(0.05)
    pid = int(sleeper.read_text())
    os.killpg(child.pid, signal.SIGINT)
    assert b"KeyboardInterrupt" in child.communicate(timeout=60)[1]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert len(sweep_with(tmp_path)) == 6
    assert jobs(tmp_path) == [[1, 2, 4], [2, 4], [1, 2, 4]]
