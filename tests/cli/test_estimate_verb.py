"""``autoglm estimate``: tables and JSON, exit codes, and what is told of wrong words; the peak of a real training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from command_line import ENVIRONMENT
from openautoglm.cli import main
from openautoglm.core.files import write_json
from openautoglm.models.presets import preset
from openautoglm.pipeline.check import check
from openautoglm.pipeline.context import Run
from openautoglm.pipeline.estimating import compressing, libraries, serving, training
from tiny_task import write_task

SERVE = ("--for", "serve", "--cache-tokens", "2048", "--max-batch-tokens", "64")


@pytest.fixture
def _known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (training, serving, compressing):
        monkeypatch.setattr(room, "library_bytes", lambda kind: 50_000_000)
        monkeypatch.setattr(room, "bytes_per_s", lambda *_: 1e10)
    for room in (serving, compressing):
        monkeypatch.setattr(room, "products_per_s", lambda: 1e11)
    monkeypatch.setattr("openautoglm.pipeline.facts._matmul_flops_per_s", lambda: 1e11)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """The verb in this process: exit code, output, errors."""
    with pytest.raises(SystemExit) as caught:
        main.main(["estimate", *words])
    told = capsys.readouterr()
    return int(caught.value.code or 0), told.out, told.err


@pytest.mark.usefixtures("_known_machine")
def test_json_holds_all_three(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "base", "--format", "json", "--batch", "16", "--tokens", "1M", "--recipe", "gptq",
                       "--quantise", "int4", "--cache-tokens", "2048")
    assert code == 0
    told = json.loads(out)
    assert told["subject"] == "base"
    assert [one["what"] for one in told["estimates"]] == ["train", "compress", "serve"]
    for one in told["estimates"]:
        assert one["peak_bytes"] == sum(one["moments"][one["peak"]].values())
        assert one["peak_bytes"] == max(sum(parts.values()) for parts in one["moments"].values())
        assert {"fits", "limit_bytes", "seconds", "reckoned", "rates", "settings", "remedies"} < set(one)
    assert told["estimates"][0]["seconds"] > 0
    assert told["estimates"][2]["seconds"] is None
    assert told["estimates"][2]["rates"]["tokens/s of one answer"] > 0


@pytest.mark.usefixtures("_known_machine")
def test_a_folder_with_a_configuration_alone_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "config.json", preset("small").config())
    code, out, _ = run(capsys, str(tmp_path), *SERVE, "--quantise", "int8")
    assert code == 0
    for word in ("peak memory", "weights", "keys and values", "interpreter and libraries", "fits into"):
        assert word in out


@pytest.mark.usefixtures("_known_machine")
def test_too_little_memory_is_status_3_and_names_a_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "base", *SERVE, "--memory", "100MB")
    assert code == 3
    assert "DOES NOT FIT into 100.0 MB" in out
    assert "--quantise int4" in out
    assert run(capsys, "base", *SERVE, "--memory", "2GB")[0] == 0


@pytest.mark.parametrize(("words", "told"), [
    pytest.param(("smal",), "did you mean 'small'?", id="unknown preset"),
    pytest.param(("nowhere/task.yaml",), "is no file, no folder and no preset", id="missing file"),
    pytest.param(("base", "--for", "eat"), "none of train, compress, serve and all", id="for"),
    pytest.param(("base", "--format", "xml"), "neither table nor json", id="format"),
    pytest.param(("base", "--memory", "much"), "is not a size", id="memory"),
    pytest.param(("base", "--tokens", "many"), "is not a count", id="tokens"),
    pytest.param(("base", "--for", "train", "--precision", "fp8"), "precision", id="precision"),
    pytest.param(("base", "--quantise", "int3"), "quantise", id="quantise"),
    pytest.param(("base", "--kv", "int4"), "cache", id="kv"),
    pytest.param(("base", "--recipe", "gtpq"), "neither a method nor a recipe file", id="recipe"),
])
def test_wrong_words_are_status_2(words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, *words)
    assert code == 2
    assert told in " ".join(err.replace("│", " ").split())


@pytest.mark.usefixtures("_known_machine")
def test_a_configuration_that_cannot_be_used_is_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    code, _, err = run(capsys, str(tmp_path))
    assert code == 1
    assert "llama" in err


def test_libraries_are_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls: list[str] = []
    monkeypatch.setattr(libraries, "_measured", lambda kind: calls.append(kind) or 77)
    find = libraries.library_bytes.__wrapped__
    assert (find("serve"), find("serve"), calls) == (77, 77, ["serve"])
    [kept] = (tmp_path / "openautoglm").iterdir()
    kept.write_text("{}")
    assert (find("serve"), calls) == (77, ["serve", "serve"])


TRAIN = """
import numpy as np
from openautoglm.data.tokens import store_from_ids
from openautoglm.models import hf
from openautoglm.models.presets import preset
from openautoglm.pipeline.compressing.child import peak_bytes
from openautoglm.pipeline.learn import drive
from openautoglm.train.settings import TrainSettings
dice = np.random.default_rng(0)
store = store_from_ids([(dice.integers(0, 1000, 60).tolist(), 30) for _ in range(400)])
settings = TrainSettings(batch=200, passes=1, precision="fp32", tensorboard=False)
for _ in drive(hf.build(preset("micro"), seed=0, dropout=0.1), store, None, settings, None, label="train"):
    pass
print(peak_bytes())
"""


@pytest.mark.slow
def test_the_peak_of_a_real_training_lies_within_the_promise() -> None:
    from openautoglm.core.hardware import probe
    from openautoglm.pipeline.estimating.ask import train_settings
    from openautoglm.pipeline.facts import MachineFacts

    settings = train_settings({"batch": 200, "passes": 1, "precision": "fp32"})
    trained = training.plain_training(preset("micro"), settings, 60, bf16=False, adapters=0)
    facts: dict[str, Any] = {"memory_bytes": 1 << 40, "flops_per_s": 1e10}
    cost = training.training_cost(trained, 0, probe(), MachineFacts(**facts))
    done = subprocess.run([sys.executable, "-c", TRAIN], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert 0.85 < cost.peak_bytes / int(done.stdout.split()[-1]) < 1.15


@pytest.mark.usefixtures("_known_machine")
def test_what_a_compression_writes_is_counted_on_the_disk(tmp_path: Path) -> None:
    sizes, parameters = [], 0
    for more in ("", "compress: {recipe: [{method: rtn}, {method: kv}]}", "compress: {recipe: auto}"):
        found = check(Run.of(write_task(tmp_path, more=more)))
        assert found.estimate is not None, found.lines
        sizes.append(found.estimate.disk_bytes)
        parameters = found.estimate.plan.spec.parameters
    assert sizes[1] - sizes[0] == (2 + 1 + 1) * 4 * parameters
    assert sizes[2] > sizes[1]
