"""``autoglm graph``: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openautoglm.cli import main
from openautoglm.models.presets import PRESETS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint folder of which only the configuration is there."""
    (tmp_path / "config.json").write_text(json.dumps(PRESETS["glm-edge-1.5b"].config()))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Code, output and errors."""
    with pytest.raises(SystemExit) as caught:
        main.main(["graph", *map(str, arguments)])
    said = capsys.readouterr()
    return int(str(caught.value.code)), said.out, said.err


def test_rules_are_counted_and_the_graph_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, folder)
    assert code == 0
    assert "as built: 452 nodes" in out
    assert ["fuse_qkv", "28"] in [line.split() for line in out.splitlines()]
    assert "layers 1 to 26, 26 times the same" in out
    assert "model.layers.3" not in out


def test_the_graph_as_built(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, folder, "--no-rules", "--all-layers")
    assert code == 0
    assert "fuse_qkv" not in out
    assert "\nlayer 17\n" in out


@pytest.mark.parametrize(("target", "operator"), [("native", "quantised_rows_linear"), ("torch", "quantised_linear"),
                                                  ("torch:cuda", "quantised_linear")])
def test_a_recipe_for_a_target(folder: Path, capsys: pytest.CaptureFixture[str], target: str, operator: str) -> None:
    code, out, _ = run(capsys, folder, "--target", target, "--quantise", "int4", "--group", "64", "--asymmetric",
                       "--head", "bf16", "--keep", "*.o_proj.*")
    assert code == 0
    assert f"  {operator}  " in out
    assert "int4, groups of 64, asymmetric" in out
    assert "model.embed_tokens.weight.bf16" in out
    assert "o_proj.weight.int4" not in out


def test_each_application_is_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, folder, "--log", "--rule", "fold_norm_weight")
    assert "  fuse_qkv  model.layers.12.self_attn.q_proj\n" in out
    assert "unit_rms_norm" in out


def test_pictures_are_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, _ = run(capsys, folder, "--svg", folder / "a.svg", "--html", folder / "a.html")
    assert code == 0
    assert (folder / "a.svg").read_text().startswith("<svg")
    assert "fuse_add_norm" in (folder / "a.html").read_text()


@pytest.mark.parametrize(("options", "code", "said"), [
    (["--target", "cuda"], 2, "--target"), (["--quantise", "int3"], 2, "--quantise"),
    (["--group", "32"], 2, "group without a format"), (["--quantise", "int8", "--group", "5"], 2, "--group"),
    (["--no-rules", "--quantise", "int8"], 2, "--no-rules"), (["--rule", "none"], 1, "there is no rule 'none'"),
])
def test_wrong_options_are_told(folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int,
                                said: str) -> None:
    found, _, err = run(capsys, folder, *options)
    assert found == code
    assert said in err


@pytest.mark.parametrize(("content", "said"), [
    (None, "config.json cannot be read"), ("{", "config.json cannot be read"), ("[]", "config.json is no mapping"),
    ('{"model_type": "llama"}', "llama")])
def test_what_is_no_model_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None,
                                  said: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    code, _, err = run(capsys, tmp_path)
    assert code == 1
    assert said in err
    assert "remedy" in err
