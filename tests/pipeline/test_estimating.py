"""Estimates: the engine's own accounting, the plan of a quantisation, and the same figures from check and estimate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openautoglm.compress.calibrate import Calibration
from openautoglm.compress.plan import Shown, moments, plan, state_bytes
from openautoglm.compress.settings import AwqSettings, GptqSettings, RtnSettings
from openautoglm.core.errors import SpecError, TaskError
from openautoglm.core.files import write_json
from openautoglm.engine.open import ProgramSettings, open_engine, planned
from openautoglm.models import hf
from openautoglm.models.checkpoint import read_spec
from openautoglm.models.presets import preset
from openautoglm.models.spec import GlmSpec
from openautoglm.pipeline.check import check
from openautoglm.pipeline.compressing.recipe import make_recipe
from openautoglm.pipeline.context import Run
from openautoglm.pipeline.estimating import ask, compressing, serving, training
from openautoglm.pipeline.estimating.ask import Asked, costs
from openautoglm.pipeline.estimating.compressing import compression_cost
from openautoglm.pipeline.estimating.cost import Cost
from openautoglm.pipeline.estimating.serving import serving_cost
from openautoglm.pipeline.estimating.subject import Subject, subject_of
from openautoglm.pipeline.units import bytes_text
from openautoglm.runtime.load import weigh
from tiny_task import write_task

SMALL = GlmSpec(vocab_size=128, hidden_size=64, layers=2, heads=4, kv_heads=2, head_dim=16, ffn_size=96,
                max_positions=256)
MUCH = 1 << 50


@pytest.fixture(autouse=True)
def _known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries and rates as if they were measured already."""
    for room in (training, serving, compressing):
        monkeypatch.setattr(room, "library_bytes", lambda kind: 400_000_000 if kind == "train" else 60_000_000)
        monkeypatch.setattr(room, "bytes_per_s", lambda *_: 1e10)
    for room in (serving, compressing):
        monkeypatch.setattr(room, "products_per_s", lambda: 1e11)
    monkeypatch.setattr("openautoglm.pipeline.facts._matmul_flops_per_s", lambda: 1e11)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    hf.build(SMALL, seed=0).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("program", [
    pytest.param({}, id="as stored"), pytest.param({"dtype": "bf16", "max_rows": 64}, id="bf16"),
    pytest.param({"quantise": {"format": "int8"}}, id="int8"),
    pytest.param({"quantise": {"format": "int4"}, "cache": "int8"}, id="int4"),
    pytest.param({"target": "torch:cpu"}, id="torch")])
def test_serving_is_what_the_engine_accounts(checkpoint: Path, program: dict[str, Any]) -> None:
    settings = ProgramSettings(cache_tokens=512, **program)
    real = open_engine(checkpoint, settings).program.facts
    for folder, weights in ((checkpoint, checkpoint), (checkpoint, None)):
        told = weigh(planned(read_spec(checkpoint), settings, folder), weights)
        assert (told.weight_bytes, told.cache_bytes, told.activation_bytes) == (
            real.weight_bytes, real.cache_bytes, real.activation_bytes)
    cost = serving_cost(SMALL, settings, MUCH, checkpoint)
    assert cost.moments["serving"]["keys and values"] == real.cache_bytes
    assert cost.fits


def test_a_configuration_alone_and_nine_billion_parameters_do(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {**preset("glm-4-9b").config(), "dtype": "bfloat16"})
    [cost] = costs(subject_of(str(tmp_path)), Asked(wanted=("serve",), program=ProgramSettings(
        target="torch:cpu", cache_tokens=4096)))
    assert cost.parts["weights"] == pytest.approx(2 * preset("glm-4-9b").parameters, rel=0.01)
    assert cost.settings["weights"] == "bf16"
    assert subject_of("glm-4-9b").bf16
    assert not subject_of("base").bf16


def test_a_quantisation_is_what_its_plan_says() -> None:
    spec = preset("base")
    shown = Calibration(tuple((1,) * 64 for _ in range(32)))
    for base in (RtnSettings(), GptqSettings(), AwqSettings()):
        seen = None if isinstance(base, RtnSettings) else shown
        found = plan(spec, base, seen, MUCH, base_bytes=0)
        told = None if seen is None else Shown(seen.tokens, seen.longest)
        assert found.work_bytes == max(sum(parts.values()) for parts in moments(spec, base, told).values())
        assert found.state_bytes == (0 if told is None else state_bytes(spec, told))
        recipe = make_recipe({"recipe": [base.method]})
        cost = compression_cost(spec, recipe, MUCH, calibration_tokens=32 * 64, length=64)
        own = [sum(parts.values()) for moment, parts in cost.moments.items() if moment != "measuring"]
        assert max(own) == found.total_bytes + 60_000_000


def test_check_and_estimate_tell_the_same(tmp_path: Path) -> None:
    task = write_task(tmp_path)
    found = check(Run.of(task))
    assert found.estimate is not None
    [cost] = costs(subject_of(str(task)), Asked(wanted=("train",)))
    assert cost.moments == found.estimate.cost.moments
    assert cost.seconds == found.estimate.cost.seconds
    [line] = [line for line in found.lines if line.what == "memory"]
    assert line.value.startswith(f"about {bytes_text(cost.peak_bytes)} of ")


def test_options_stand_in_place_of_the_task(tmp_path: Path) -> None:
    subject = subject_of(str(write_task(tmp_path)))
    [plain] = costs(subject, Asked(wanted=("train",)))
    [larger] = costs(subject, Asked(wanted=("train",), train={"batch": 64}))
    [lean] = costs(subject, Asked(wanted=("train",), train={"batch": 64, "optimiser_state": "8bit"}))
    assert plain.peak_bytes < larger.peak_bytes
    assert lean.parts["optimiser state"] < 0.3 * larger.parts["optimiser state"]
    assert [one.what for one in costs(subject, Asked())] == ["train", "compress", "serve"]


def test_what_does_not_fit_names_what_would() -> None:
    spec = preset("base")
    whole = costs(Subject("base", spec), Asked(wanted=("train",), train={"batch": 256}))[0]
    limit = int(0.7 * whole.peak_bytes)
    cost = costs(Subject("base", spec), Asked(wanted=("train",), train={"batch": 256}, memory=limit))[0]
    assert not cost.fits
    assert "train.gradient_checkpointing: true" in cost.remedy
    assert all(size < cost.peak_bytes for _, size in cost.remedies)
    served = serving_cost(spec, ProgramSettings(cache_tokens=4096), 200_000_000)
    assert "--quantise int4" in served.remedy
    assert "--kv int8" in dict(served.remedies)
    assert "none of these" in serving_cost(spec, ProgramSettings(cache_tokens=4096), 1000).remedy
    tight = compression_cost(spec, make_recipe({"recipe": ["gptq"]}), 1000)
    assert "--recipe rtn" in tight.remedy


def test_more_takes_more() -> None:
    spec = preset("base")

    def train(**more: Any) -> Cost:
        return costs(Subject("base", spec), Asked(wanted=("train",), tokens=10**6, **more))[0]

    assert train(train={"batch": 8}).peak_bytes < train(train={"batch": 16}).peak_bytes
    assert train(lora=8).peak_bytes < train().peak_bytes
    assert train(train={"accumulation": 4}).peak_bytes < train().peak_bytes
    assert train(train={"row_tokens": 512, "layout": "packed"}).peak_bytes > 0
    slow = train(train={"gradient_checkpointing": True}).seconds
    assert slow is not None
    assert slow > (train().seconds or 0) > 0
    few, many = (serving_cost(spec, ProgramSettings(cache_tokens=tokens), MUCH) for tokens in (4096, 65536))
    assert few.peak_bytes < many.peak_bytes
    assert ask.train_settings({"freeze": {"layers": 2}}).freeze is not None


def test_what_is_named_wrongly_is_said(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="did you mean 'glm-4-9b'"):
        subject_of("glm-4-9")
    with pytest.raises(TaskError, match="no file, no folder and no preset"):
        subject_of(str(tmp_path / "task.yaml"))
    (tmp_path / "bundle.zip").write_bytes(b"")
    with pytest.raises(TaskError, match="unpack"):
        subject_of(str(tmp_path / "bundle.zip"))
    (tmp_path / "spec.yaml").write_text("hidden_size: 64\nlayers: x\n")
    with pytest.raises(SpecError, match="layers"):
        subject_of(str(tmp_path / "spec.yaml"))
    (tmp_path / "spec.yaml").write_text("\n".join(f"{key}: {value}" for key, value in (
        ("vocab_size", 64), ("hidden_size", 32), ("layers", 1), ("heads", 2), ("kv_heads", 1), ("head_dim", 16),
        ("ffn_size", 48))))
    assert subject_of(str(tmp_path / "spec.yaml")).spec is not None
    with pytest.raises(TaskError, match="batch"):
        costs(Subject("base", preset("base")), Asked(wanted=("train",), train={"batch": 0}))
