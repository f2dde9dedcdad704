"""``autoglm edge``: the verb's own part; what it makes is tested in tests/edge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from openautoglm.cli import edge
from openautoglm.core.errors import BundleError, GenerationError
from openautoglm.models import hf
from openautoglm.models.bundle_writer import write_bundle
from openautoglm.models.spec import GlmSpec
from openautoglm.runtime.native import native_module, why_not
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A tiny bundle that was trained on columns."""
    if native_module() is None:
        pytest.skip(why_not())
    tokenizer = Tokenizer.train(["some text"], 280)
    spec = GlmSpec(vocab_size=tokenizer.vocab_size, hidden_size=32, layers=1, heads=2, kv_heads=1, head_dim=16,
                   ffn_size=64, max_positions=64, eos_ids=Template().stop_ids(tokenizer), pad_id=tokenizer.pad_id)
    facts = {"recipe": {"record": {"template": "{name} eats {food}", "target": "text"},
                        "decoding": {"max_new_tokens": 33}}}
    return write_bundle(tmp_path / "tiny", model=hf.build(spec, seed=1), spec=spec, tokenizer=tokenizer,
                        template=Template(), card_facts=facts).path


def invoke(*words: Any) -> Any:
    return CliRunner().invoke(edge.app, [str(word) for word in words])


def test_a_folder_is_made_with_a_given_program(bundle: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"not for this machine")
    done = invoke(bundle, "-o", tmp_path / "out", "--quantise", "int4", "--head", "int4", "--program", program)
    assert done.exit_code == 0, done.output
    assert "does not run on this machine" in done.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"autoglm-edge", "manifest.txt", "tokenizer.bin", "weights.safetensors"}
    lines = (tmp_path / "out" / "manifest.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "autoglm-edge 1"
    assert {'name "tiny"', "max_tokens 33", 'column "name"', 'text " eats "', 'column "food"'} <= set(lines)
    assert {line.split()[1] for line in lines if line.startswith("weight ")} == {"int4"}


def test_what_is_there_is_left_alone(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine", encoding="utf-8")
    done = invoke(bundle, "-o", tmp_path / "out")
    assert isinstance(done.exception, BundleError)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
    failed = invoke(bundle, "-o", tmp_path / "other", "--program", tmp_path / "nowhere")
    assert "does not exist" in str(failed.exception)
    assert not list(tmp_path.glob("*other*"))


def test_a_head_without_a_format_is_refused(bundle: Path, tmp_path: Path) -> None:
    assert isinstance(invoke(bundle, "-o", tmp_path / "out", "--head", "int4").exception, GenerationError)
