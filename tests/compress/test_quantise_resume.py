"""A run that is killed goes on where it was and gives the same bytes; damaged sources and folders are named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantise_models import sequences, small_checkpoint, small_spec
from safetensors.numpy import load_file, save_file

from openautoglm.compress import mixed, quantise
from openautoglm.compress.quantise import quantise_checkpoint
from openautoglm.compress.settings import AwqSettings, GptqSettings, MixedSettings, RtnSettings
from openautoglm.core.errors import AutoGLMError, BundleError, CheckpointError, SpecError, TaskError

METHODS = [RtnSettings(), GptqSettings(), AwqSettings(alphas=4), MixedSettings(average_bits=6.5, tokens=100)]
SPEC = small_spec("glm4", layers=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of three layers."""
    made = tmp_path_factory.mktemp("checkpoints") / "it"
    small_checkpoint(made, SPEC)
    return made


def killed(monkeypatch: pytest.MonkeyPatch, folder: Path, out: Path, workdir: Path, method: Any) -> list[int]:
    """Run until the layer 2 is to be written, then end as a signal would; return the layers that were written."""
    written, write = [], quantise.write_layer

    def until(writer: Any, source: Any, layer: int, outcome: Any) -> None:
        if layer == 2:
            raise KeyboardInterrupt
        written.append(layer)
        write(writer, source, layer, outcome)

    monkeypatch.setattr(quantise, "write_layer", until)
    with pytest.raises(KeyboardInterrupt):
        quantise_checkpoint(folder, out, method, sequences(), workdir=workdir)
    monkeypatch.undo()
    return written


def resumed(monkeypatch: pytest.MonkeyPatch, folder: Path, out: Path, workdir: Path, method: Any) -> list[int]:
    """Run to the end; return the layers that were written."""
    written, write = [], quantise.write_layer

    def noted(writer: Any, source: Any, layer: int, outcome: Any) -> None:
        written.append(layer)
        write(writer, source, layer, outcome)

    monkeypatch.setattr(quantise, "write_layer", noted)
    quantise_checkpoint(folder, out, method, sequences(), workdir=workdir)
    monkeypatch.undo()
    return written


@pytest.mark.parametrize("method", METHODS, ids=[method.method for method in METHODS])
def test_a_killed_run_goes_on_at_its_layer(method: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                           ) -> None:
    whole = quantise_checkpoint(folder, tmp_path / "whole", method, sequences())
    assert killed(monkeypatch, folder, tmp_path / "out", tmp_path / "work", method) == [0, 1]
    assert not (tmp_path / "out").exists()
    assert resumed(monkeypatch, folder, tmp_path / "out", tmp_path / "work", method) == [2]
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    assert list((tmp_path / "work").iterdir()) == []
    assert len(whole.matrices) == 3 * 4 + 2


@pytest.mark.parametrize("memory", ["memory", "disk"])
def test_a_measurement_of_mixed_goes_on_at_its_layer(memory: str, folder: Path, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    method, work = MixedSettings(average_bits=6.5, tokens=100), tmp_path / "work"
    whole = quantise_checkpoint(folder, tmp_path / "whole", method, sequences())
    if memory == "disk":
        real_plan = quantise.plan
        monkeypatch.setattr(quantise, "plan", lambda *a, **k: replace(real_plan(*a, **k), on_disk=True))
    measured, real = list[int](), mixed._divergences

    def until(*given: Any) -> Any:
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(len(measured))
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(mixed, "_divergences", until)
        with pytest.raises(KeyboardInterrupt):
            quantise_checkpoint(folder, tmp_path / "out", method, sequences(), workdir=work)
    state = json.loads((work / "quantise.json").read_text())
    assert (state["layers"], len(state["sensitivity"])) == (0, 2 * 4)
    monkeypatch.setattr(mixed, "_divergences", lambda *given: (measured.append(9), real(*given))[1])
    facts = quantise_checkpoint(folder, tmp_path / "out", method, sequences(), workdir=work)
    assert measured == [0, 1, 9]
    assert facts.sensitivity == whole.sensitivity
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    assert list(work.iterdir()) == []


def test_another_method_or_calibration_starts_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                    ) -> None:
    killed(monkeypatch, folder, tmp_path / "out", tmp_path / "work", GptqSettings())
    (tmp_path / "work" / "mine.txt").write_text("stays")
    assert resumed(monkeypatch, folder, tmp_path / "out", tmp_path / "work", GptqSettings(group=0, bits=8)) == [0, 1, 2]
    assert [file.name for file in (tmp_path / "work").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(("damage", "message"), [
    pytest.param(lambda work: next(work.glob("states-*.bin")).write_bytes(b"few"), "missing or cut short", id="states"),
    pytest.param(lambda work: (work / "quantise.json").write_text('{"layers": 2'), "cannot be read", id="json"),
])
def test_a_damaged_work_folder_is_named(damage: Any, message: str, folder: Path, tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    killed(monkeypatch, folder, tmp_path / "out", tmp_path / "work", GptqSettings())
    damage(tmp_path / "work")
    with pytest.raises(CheckpointError, match=message):
        quantise_checkpoint(folder, tmp_path / "out", GptqSettings(), sequences(), workdir=tmp_path / "work")


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _without(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, folder / "model.safetensors")


def _not_finite(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][3, 4] = np.inf
    save_file(tensors, folder / "model.safetensors")


def _other_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 128}))


def _foreign(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))


def _quantised(folder: Path) -> None:
    quantise_checkpoint(folder, folder / "quantised.safetensors", RtnSettings(), None)
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(("damage", "kind", "message"), [
    pytest.param(_cut, BundleError, "cut short or damaged", id="cut-short"),
    pytest.param(_without, BundleError, "layers.1.mlp.down_proj.weight is missing", id="a-tensor-missing"),
    pytest.param(_not_finite, BundleError, "layers.1.mlp.down_proj.weight holds a value that is not", id="not-finite"),
    pytest.param(_other_shape, BundleError, "the architecture needs", id="other-shape"),
    pytest.param(_foreign, SpecError, "not a GLM", id="foreign"),
    pytest.param(_quantised, BundleError, "quantised already", id="quantised-already"),
])
def test_damaged_sources_are_named(damage: Any, kind: type[AutoGLMError], message: str, folder: Path, tmp_path: Path
                                   ) -> None:
    shutil.copytree(folder, tmp_path / "source")
    damage(tmp_path / "source")
    with pytest.raises(kind, match=message) as caught:
        quantise_checkpoint(tmp_path / "source", tmp_path / "out", GptqSettings(), sequences())
    assert caught.value.remedy
    assert not (tmp_path / "out").exists()
    assert [file.name for file in tmp_path.iterdir() if file.name.endswith(".work")] == []


def test_a_group_that_does_not_fit_says_which_do(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"groups of 64 do not divide the 96 columns of mlp\.down_proj") as caught:
        quantise_checkpoint(folder, tmp_path / "out", RtnSettings(group=64), None)
    assert caught.value.remedy == "choose one of 32, 0"
