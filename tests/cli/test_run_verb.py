"""``autoglm run`` from end to end on a tiny task: results, skips, resumption after kill -9."""

from __future__ import annotations

import json
import os
import signal
import time
import zipfile
from pathlib import Path

import pytest

from command_line import autoglm, start
from openautoglm.core.files import read_json, sha256_file
from tiny_task import write_task

pytestmark = pytest.mark.slow


def test_a_run_leaves_everything_behind(finished: Path) -> None:
    run = finished / "runs/tiny"
    for path in ("data/train.jsonl", "data/quality.html", "tokenizer/tokenizer.json", "plan.json",
                 "train/metrics.jsonl", "evaluate/scores.json", "evaluate/predictions.jsonl", "bundle/autoglm.json",
                 "report.html", "report.json", "state.json"):
        assert (run / path).is_file(), path
    card = read_json(run / "bundle/autoglm.json")
    assert card["recipe"]["decoding_name"] in ("greedy", "beams")
    assert set(card["scores"]) == {"valid", "test"}
    assert zipfile.is_zipfile(finished / "out.zip")
    predictions = [json.loads(line) for line in (run / "evaluate/predictions.jsonl").read_text().splitlines()]
    assert len(predictions) == 30
    assert all(row["references"] for row in predictions)


def test_a_second_run_skips_every_stage_and_loads_no_torch(finished: Path) -> None:
    done = autoglm("run", finished / "task.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("skipped, finished before") == 10


def test_the_report_is_one_page_without_outside_resources(finished: Path) -> None:
    page = finished / "runs/tiny/report.html"
    before = page.read_text(encoding="utf-8")
    assert "<svg" in before
    assert "prefers-color-scheme: dark" in before
    for outside in ("http://", "https://", "<script", "<link", "@import", "url("):
        assert outside not in before.replace("http://www.w3.org/2000/svg", ""), outside
    page.unlink()
    assert autoglm("report", finished / "runs/tiny").returncode == 0
    assert page.read_text(encoding="utf-8") == before


def test_report_of_something_else_is_refused(tmp_path: Path) -> None:
    done = autoglm("report", tmp_path)
    assert done.returncode == 2
    assert "not a run folder" in done.stderr


def weights(folder: Path) -> str:
    return sha256_file(folder / "runs/tiny/bundle/model.safetensors")


def kill_once_there(path: Path, *arguments: str | Path) -> None:
    """Start a run and kill its whole process group as soon as `path` exists."""
    process = start(*arguments)
    end = time.monotonic() + 300
    while not path.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert path.exists()


def test_a_run_killed_in_every_stage_goes_on_to_the_same_model(finished: Path, tmp_path: Path) -> None:
    task = write_task(tmp_path, passes=2)
    for moment in ("data", "train/checkpoints/step-00000005", "evaluate/texts", "bundle"):
        assert not (tmp_path / "runs/tiny" / moment).exists()
        kill_once_there(tmp_path / "runs/tiny" / moment, "run", task)
    done = autoglm("run", task)
    assert done.returncode == 0, done.stderr
    assert weights(tmp_path) == weights(finished)
    assert (read_json(tmp_path / "runs/tiny/evaluate/scores.json")["splits"]
            == read_json(finished / "runs/tiny/evaluate/scores.json")["splits"])
    assert not list((tmp_path / "runs/tiny").rglob("*.part"))


def test_a_search_killed_in_its_middle_ends_as_a_whole_one_and_its_point_is_trained(tmp_path: Path) -> None:
    more = ("search: {trials: 3, dev_cases: 5, trial_tokens: 3000, startup_trials: 10,\n"
            "         space: {layers: 1, hidden_size: 16, vocab_size: [300, 320]}}")
    (tmp_path / "whole").mkdir()
    whole = write_task(tmp_path / "whole", more=more)
    task = write_task(tmp_path, more=more)
    assert autoglm("run", whole).returncode == 0
    kill_once_there(tmp_path / "runs/tiny/search/trials.json", "run", task)
    assert not (tmp_path / "runs/tiny/search/chosen.json").exists()
    done = autoglm("run", task)
    assert done.returncode == 0, done.stderr
    assert "search: going on where it stopped" in done.stderr
    assert weights(tmp_path) == weights(tmp_path / "whole")
    run = tmp_path / "runs/tiny"
    trials = read_json(run / "search/trials.json")
    assert sum(trial["state"] in ("complete", "pruned") for trial in trials["trials"]) == 3
    chosen = read_json(run / "search/chosen.json")["point"]
    card = read_json(run / "bundle/autoglm.json")
    assert card["spec"]["vocab_size"] == -(-chosen["vocab_size"] // 8) * 8
    assert card["recipe"]["plan"]["train"]["lr"] == chosen["lr"]
    assert "Best trials" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_a_bundle_is_tuned_on_further_data(finished: Path, tmp_path: Path, tune: str) -> None:
    task = write_task(tmp_path)
    text = task.read_text(encoding="utf-8").replace("tokenizer: {vocab_size: 300}\n", "")
    text = text.replace("model: {size: micro, hidden_size: 16, layers: 1, heads: 2, kv_heads: 1}",
                        f"model: {{checkpoint: '{finished}/runs/tiny/bundle', tune: {tune}}}")
    task.write_text(text, encoding="utf-8")
    done = autoglm("run", task)
    assert done.returncode == 0, done.stderr
    before, after = (read_json(folder / "runs/tiny/bundle/autoglm.json") for folder in (finished, tmp_path))
    assert after["spec"] == before["spec"]
    assert after["template"] == before["template"]
    assert after["tokenizer"] == before["tokenizer"]
    assert weights(tmp_path) != weights(finished)


def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path) -> None:
    task = write_task(tmp_path, passes=1000)
    process = start("run", task)
    seen = tmp_path / "runs/tiny/train/checkpoints/step-00000005"
    end = time.monotonic() + 300
    while not seen.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"again goes on where this stopped" in said
    assert b"Traceback" not in said


def test_more_trials_go_on_with_the_same_search(tmp_path: Path) -> None:
    more = ("search: {trials: 2, minutes: 3, dev_cases: 0, trial_tokens: 2500,\n"
            "         space: {layers: 1, hidden_size: 16, vocab_size: 304}}")
    task = write_task(tmp_path, more=more)
    assert autoglm("search", task).returncode == 0
    trials = tmp_path / "runs/tiny/search/trials.json"
    first = read_json(trials)["trials"]
    task.write_text(task.read_text(encoding="utf-8").replace("trials: 2", "trials: 3"), encoding="utf-8")
    assert autoglm("search", task).returncode == 0
    assert read_json(trials)["trials"][: len(first)] == first
    assert sum(trial["state"] in ("complete", "pruned") for trial in read_json(trials)["trials"]) == 3
