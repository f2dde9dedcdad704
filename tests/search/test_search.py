"""A whole search of a synthetic objective: states, budget, failures, refusals, the choice of the best."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from search_synthetic import CONSTRAINTS, MAX_TOKENS, SETTINGS, objective, space

from openautoglm.core.errors import SearchError
from openautoglm.search.records import Outcome, SearchResult
from openautoglm.search.settings import SearchSettings
from openautoglm.search.space import Float, Point, Space
from openautoglm.search.study import Objective, Report, search

LINE = Space({"x": Float(-1.0, 1.0)})


@pytest.fixture(autouse=True)
def _no_disk_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncing 500 times to a disk is slow, and these tests cut no power."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchResult, Path]:
    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        return search(space(), objective, SETTINGS, folder, max_tokens=MAX_TOKENS, constraints=CONSTRAINTS,
                      maximize=True), folder


def line(folder: Path, run: Objective, **options: object) -> SearchResult:
    settings = SearchSettings(**{"trials": 6, **options})
    return search(LINE, run, settings, folder, max_tokens=100)


def test_budget_counts_trained_trials_only(found: tuple[SearchResult, Path]) -> None:
    result, _ = found
    assert sum(trial.state != "refused" for trial in result.trials) == 30
    assert result.stopped == "trials"
    assert {trial.state for trial in result.trials} >= {"complete", "pruned", "refused"}


def test_best_is_the_highest_metric_among_completed_feasible_trials(found: tuple[SearchResult, Path]) -> None:
    result, _ = found
    done = [trial for trial in result.trials if trial.state == "complete" and trial.feasible]
    assert result.best.metrics["bleu"] == max(trial.metrics["bleu"] for trial in done)
    assert result.best.metrics["bleu"] > 95
    assert result.best.point["schedule"] == "cosine"
    assert [entry["best"] for entry in result.history] == sorted(float(e["best"]) for e in result.history)


def test_refused_points_were_not_trained(found: tuple[SearchResult, Path]) -> None:
    result, _ = found
    refused = [trial for trial in result.trials if trial.state == "refused"]
    assert refused
    for trial in refused:
        assert not trial.reports
        assert trial.constraints["parameters"] > 0
        assert trial.error is not None
        assert "over the limit: parameters by" in trial.error
    assert all(trial.constraints["parameters"] <= 0 for trial in result.trials if trial.state != "refused")


def test_pruned_trials_stop_at_a_rung(found: tuple[SearchResult, Path]) -> None:
    result, _ = found
    pruned = [trial for trial in result.trials if trial.state == "pruned"]
    assert pruned
    assert all(trial.reports[-1][0] < MAX_TOKENS for trial in pruned)
    assert all(len(trial.reports) == 9 for trial in result.trials if trial.state == "complete")


def test_derived_dimension_divides(found: tuple[SearchResult, Path]) -> None:
    result, _ = found
    assert all(int(trial.point["heads"]) % int(trial.point["kv_heads"]) == 0 for trial in result.trials)
    assert len({trial.point["kv_heads"] for trial in result.trials}) > 1


def test_importances_and_outputs(found: tuple[SearchResult, Path]) -> None:
    result, folder = found
    assert sum(result.importances.values()) == pytest.approx(1.0)
    assert "schedule" not in result.importances
    stored = json.loads((folder / "trials.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(result.to_dict(), allow_nan=False))
    table = result.table()
    assert f"{sum(trial.state == 'complete' for trial in result.trials)} complete, " in table
    assert table.splitlines()[1].split()[0] == str(result.best.number)


def test_a_finished_search_repeats_nothing(found: tuple[SearchResult, Path]) -> None:
    result, folder = found
    again = search(space(), objective, SETTINGS, folder, max_tokens=MAX_TOKENS, constraints=CONSTRAINTS,
                   maximize=True)
    assert again == result


def test_same_seed_same_points_other_seed_others(found: tuple[SearchResult, Path], tmp_path: Path) -> None:
    result, _ = found
    short = SETTINGS.model_copy(update={"trials": 4})
    same = search(space(), objective, short, tmp_path / "a", max_tokens=MAX_TOKENS, constraints=CONSTRAINTS)
    assert [t.point for t in same.trials] == [t.point for t in result.trials[:len(same.trials)]]
    other = search(space(), objective, short.model_copy(update={"seed": 8}), tmp_path / "b",
                   max_tokens=MAX_TOKENS, constraints=CONSTRAINTS)
    assert [t.point for t in other.trials] != [t.point for t in same.trials]


def test_failed_trials_are_recorded_and_do_not_stop(tmp_path: Path) -> None:
    def half(point: Point, report: Report) -> Outcome:
        if float(point["x"]) < 0:
            raise ValueError(f"negative {point['x']}")
        return Outcome(float(point["x"]))

    result = line(tmp_path, half)
    failed = [trial for trial in result.trials if trial.state == "failed"]
    assert failed
    assert all(trial.error == f"ValueError: negative {trial.point['x']}" for trial in failed)
    assert result.best.value == min(trial.value for trial in result.trials if trial.value is not None)


def test_all_failing_is_an_error_that_tells_the_first(tmp_path: Path) -> None:
    def broken(point: Point, report: Report) -> Outcome:
        raise RuntimeError("no such device")

    with pytest.raises(SearchError, match=r"first 10 trials all failed.*no such device"):
        line(tmp_path / "many", broken, trials=500)
    with pytest.raises(SearchError, match=r"no feasible trial completed \(3 failed; RuntimeError"):
        line(tmp_path / "few", broken, trials=3)


def test_divergence_prunes(tmp_path: Path) -> None:
    def diverge(point: Point, report: Report) -> Outcome:
        report(10, 1.0)
        if float(point["x"]) < -0.3:
            report(20, float("nan"))
        return Outcome(float("inf") if float(point["x"]) > 0.3 else 0.5)

    result = line(tmp_path, diverge, trials=12)
    diverged = [trial for trial in result.trials if trial.error and "diverged" in trial.error]
    assert {trial.state for trial in diverged} == {"pruned"}
    assert {len(trial.reports) for trial in diverged} == {1, 2}
    assert result.to_dict()["trials"][diverged[0].number]["error"].startswith("diverged")


def test_measured_constraints_exclude_a_completed_trial(tmp_path: Path) -> None:
    result = line(tmp_path, lambda point, report: Outcome(
        float(point["x"]), constraints={"memory": 0.2 - float(point["x"])}))
    assert float(result.best.point["x"]) >= 0.2
    assert any(not trial.feasible for trial in result.trials)


def test_nothing_feasible_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openautoglm.search.study.MOST_REFUSED", 12)
    with pytest.raises(SearchError, match="12 refused; over the limit: size by 1"):
        search(LINE, lambda point, report: Outcome(0.0), SearchSettings(trials=2), tmp_path, max_tokens=100,
               constraints={"size": lambda point: 1.0})


def test_a_missing_metric_and_shrinking_tokens_are_told(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="the objective gave no 'bleu', only chrf"):
        line(tmp_path / "a", lambda point, report: Outcome(0.0, {"chrf": 1.0}), trials=2, metric="bleu")

    def backwards(point: Point, report: Report) -> Outcome:
        report(20, 1.0)
        report(20, 0.9)
        return Outcome(0.0)

    with pytest.raises(SearchError, match="tokens must grow, but 20 came after 20"):
        line(tmp_path / "b", backwards, trials=2)


def test_limits_are_needed_and_minutes_end_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SearchError, match="needs a limit"):
        line(tmp_path, lambda point, report: Outcome(0.0), trials=None)
    now = [0.0]
    monkeypatch.setattr("openautoglm.search.study.time.monotonic", lambda: now[0])

    def slow(point: Point, report: Report) -> Outcome:
        for tokens in (50, 99):
            now[0] += 20.0
            report(tokens, -tokens / 100)
        return Outcome(-1.0)

    result = line(tmp_path, slow, trials=None, minutes=1.5)
    assert result.stopped == "minutes"
    assert [trial.state for trial in result.trials] == ["complete", "complete", "interrupted"]
    assert result.seconds == pytest.approx(100.0)
    more = line(tmp_path, slow, trials=None, minutes=3.0)
    assert [trial.state for trial in more.trials][:4] == ["complete", "complete", "interrupted", "complete"]
    assert more.trials[3].point == more.trials[2].point


@pytest.mark.slow
def test_a_database_by_url(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'trials.db'}"
    run = lambda point, report: Outcome(float(point["x"]) ** 2)  # noqa: E731
    first = line(tmp_path, run, storage=url, trials=3)
    more = line(tmp_path, run, storage=url, trials=5)
    assert [t.point for t in more.trials[:3]] == [t.point for t in first.trials]
    journal = line(tmp_path / "journal", run, trials=5)
    assert [t.point for t in journal.trials] == [t.point for t in more.trials]
    with pytest.raises(SearchError, match="cannot be opened"):
        line(tmp_path, run, storage="nosuchdialect://host/db")
