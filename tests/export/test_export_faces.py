"""The ways to an export: the command, `load(...).export`, the task file's `export.to`; and OpenVINO's absence."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from gguf_tools import Found

import openautoglm
from command_line import autoglm  # type: ignore[import-not-found]
from openautoglm.core.errors import BundleError, MissingExtraError
from openautoglm.export import openvino
from openautoglm.export.export import export_model
from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.pipeline import check
from openautoglm.pipeline.context import Run
from openautoglm.pipeline.sections import ExportTask
from tiny_task import write_task  # type: ignore[import-not-found]


def test_the_command_writes_and_tells(edge: Bundle, tmp_path: Path) -> None:
    done = autoglm("export", edge.path, tmp_path / "model.gguf", "--type", "q8_0")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("note: no pre-tokeniser of llama.cpp")
    assert "q8_0" in done.stdout
    assert Found(tmp_path / "model.gguf").types["token_embd.weight"] == "q8_0"
    wrong = autoglm("export", edge.path, tmp_path / "model.gguf", "--type", "q9")
    assert wrong.returncode == 2
    assert "q4_1" in wrong.stderr


def test_python_writes_the_same(edge: Bundle, tmp_path: Path) -> None:
    archive = openautoglm.load(edge.path).export(tmp_path / "model.zip")
    assert open_bundle(archive).spec == edge.spec
    written = openautoglm.load(archive).export(tmp_path / "model.GGUF", "f16")
    assert written == tmp_path / "model.GGUF"
    assert Found(written).types["blk.0.attn_q.weight"] == "f16"


def test_types_are_for_gguf_alone(edge: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"q8_0 is one of GGUF's"):
        export_model(edge, tmp_path / "copy", "q8_0")


def test_a_task_names_a_gguf_and_its_package_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ExportTask(to="model.gguf").to == ("model.gguf",)
    task = write_task(tmp_path)
    task.write_text(task.read_text(encoding="utf-8").replace("out.zip", "model.gguf"), encoding="utf-8")
    there = [line for line in check.check(Run.of(task)).lines if line.what == "export.to"]
    monkeypatch.setattr(check, "installed", lambda _: False)
    absent = [line for line in check.check(Run.of(task)).lines if line.what == "export.to"]
    assert there == []
    assert [(line.status, "openautoglm[export]" in line.remedy) for line in absent] == [("fault", True)]


def test_openvinos_converter_is_asked_for(edge: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optimum.intel" else object())
    with pytest.raises(MissingExtraError, match="optimum-intel is not installed") as caught:
        export_model(edge, tmp_path / "ir", "openvino")
    assert openvino.REQUIREMENTS in str(caught.value.remedy)
    assert not (tmp_path / "ir").exists()
