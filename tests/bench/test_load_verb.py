"""The verbs on the command line: options, what is printed, exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from openautoglm.bench.options import load_settings
from openautoglm.cli import bench, sweep
from openautoglm.core.errors import LoadError, TaskError
from openautoglm.core.files import read_json
from openautoglm.models.bundle import Bundle

QUICK = ("--target", "torch:cpu", "--max-concurrency", "2", "--num-prompts", "12", "--random-input-len", "6",
         "--output-len", "3")


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(bench.app, [str(argument) for argument in arguments])


def test_a_bundle_is_measured_saved_and_compared(bundle: Bundle, tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    done = call(bundle.path, *QUICK, "--goodput", "ttft:60000 e2el:60000", "--result-filename", first)
    assert done.exit_code == 0, done.output
    for words in ("Successful requests:", "Mean TTFT (ms)", "P99 ITL (ms)", "Request goodput", "Tokens a step"):
        assert words in done.output
    assert f"written: {first}" in done.output
    done = call(bundle.path, *QUICK, "--seed", "4", "--save-detailed", "--result-filename", second)
    assert done.exit_code == 0, done.output
    assert len(read_json(second)["ttfts"]) == 12
    page = tmp_path / "both.html"
    done = call("--compare", first, second, "--result-filename", page)
    assert done.exit_code == 0, done.output
    assert "mean_ttft_ms" in done.output
    assert "the loads differ in: settings" in done.output
    assert page.read_text().startswith("<!doctype html>")


def test_a_server_that_is_not_there_is_told() -> None:
    done = call("--port", "9")
    assert isinstance(done.exception, LoadError)
    assert "does not answer" in str(done.exception)


@pytest.mark.parametrize(("arguments", "says"), [
    (("--burstiness", "0"), "--burstiness"), (("--random-input-len", "0"), "--input-len"),
    (("--dataset-path", "x.csv", "--trace", "y.csv"), "leave one"), (("--trace-rate-scale", "2"), "--trace FILE"),
    (("--goodput", "ttft"), "NAME:MILLISECONDS"), (("--goodput", "tbt:5"), "no bound is known"),
    (("--metric-percentiles", "50,all"), "50,90,99"), (("--metric-percentiles", "100"), "--metric-percentiles"),
    (("--header", "nothing"), "NAME=VALUE"), (("--extra-body", "[1]"), "JSON object"),
    (("--trace", "x.csv", "--max-concurrency", "2"), "closed loop")], ids=lambda value: "-".join(value)[:40]
    if isinstance(value, tuple) else "")
def test_wrong_options_are_named(arguments: tuple[str, ...], says: str) -> None:
    done = call(*arguments)
    assert isinstance(done.exception, TaskError)
    assert says in str(done.exception)


def test_an_unknown_backend_is_refused() -> None:
    done = call("--backend", "pigeon")
    assert done.exit_code == 2
    assert "openai-chat" in done.output


def test_options_become_settings() -> None:
    given = {"request_rate": float("inf"), "max_concurrency": 3, "dataset_path": ["a.csv"],
             "goodput": ["ttft:5,tpot:6"], "metric_percentiles": "50,99.9", "seed": 7,
             "header": ["x=y"], "input_len": None}
    settings = load_settings(given)
    assert settings.arrivals.order == "closed"
    assert settings.prompts.dataset == ("a.csv",)
    assert settings.judge.goodput == {"ttft": 5, "tpot": 6}
    assert settings.judge.percentiles == (50, 99.9)
    assert settings.seed == 7


def test_a_sweep_is_made_and_goes_on(bundle: Bundle, tmp_path: Path) -> None:
    arguments = [str(bundle.path), "--target", "torch:cpu", "--max-batch", "1,4", "--clients", "2", "--threads", "1",
                 "--duration-s", "30", "--warmup-s", "0", "--num-prompts", "12", "--input-len", "6", "--output-len",
                 "3", "--max-batch-tokens", "64", "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(sweep.app, arguments)
    assert done.exit_code == 0, done.output
    assert "Use max_batch" in done.output
    runs = (tmp_path / "out" / "runs.jsonl").read_text()
    assert len(runs.splitlines()) == 3
    facts = read_json(tmp_path / "out" / "sweep.json")
    assert len(facts["curves"]) == 2
    assert facts["recommended"]["point"]["max_batch"] in (1, 4)
    again = CliRunner().invoke(sweep.app, arguments)
    assert again.exit_code == 0
    assert (tmp_path / "out" / "runs.jsonl").read_text() == runs
    assert "<svg" in (tmp_path / "out" / "sweep.html").read_text()


@pytest.mark.parametrize(("arguments", "says"), [
    (("--clients", "1,x"), "50,90,99"), (("--formats", "int3"), "int8, int4"), (("--max-batch", "0"), "greater than"),
    (("--clients", "0"), "above 0")], ids=["clients", "formats", "batch", "zero"])
def test_wrong_axes_are_named(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = CliRunner().invoke(sweep.app, [str(tmp_path), *arguments])
    assert isinstance(done.exception, TaskError)
    assert says in str(done.exception)
