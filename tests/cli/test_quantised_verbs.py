"""Every verb takes a quantised bundle as it takes any other."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import autoglm, start
from openautoglm.cli import main

RECORDS = "".join(json.dumps({"source": f"pub {number}", "target": "The Punter is cheap."}) + "\n"
                  for number in range(3))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle of random weights whose heads fit the native runtime, and a quantised one made of it, as a zip."""
    from openautoglm.models import hf
    from openautoglm.models.bundle import export, open_bundle
    from openautoglm.models.bundle_writer import write_bundle
    from openautoglm.models.quantised_bundle import write_quantised_bundle
    from openautoglm.models.spec import GlmSpec
    from openautoglm.models.weight_shapes import weight_shapes
    from openautoglm.runtime.quantised import quantise
    from openautoglm.runtime.tensors import Checkpoint
    from openautoglm.text.template import Template
    from openautoglm.text.tokenizer import Tokenizer

    folder = tmp_path_factory.mktemp("quantised")
    tokenizer = Tokenizer.train(["The Punter is a cheap pub near Café Rouge."] * 4, 300)
    spec = GlmSpec(vocab_size=8, max_positions=256, hidden_size=32, layers=2, heads=2, kv_heads=1, head_dim=16,
                   ffn_size=64, tied=True).with_vocabulary(tokenizer.vocab_size, pad_id=tokenizer.pad_id,
                                                           eos_ids=(tokenizer.special["<|endoftext|>"],))
    plain = write_bundle(folder / "plain", model=hf.build(spec, seed=1, init_std=0.3), spec=spec, tokenizer=tokenizer,
                         template=Template(), card_facts={})

    def tensors() -> Iterator[tuple[str, Any]]:
        checkpoint = Checkpoint(plain.path)
        for name, shape in weight_shapes(spec).items():
            value = np.array(checkpoint.read(name))
            yield name, quantise(value, 8 if "embed" in name else 4, 32) if len(shape) == 2 else value

    made = open_bundle(write_quantised_bundle(folder / "quantised", plain, tensors()))
    export(made, folder / "quantised.zip")
    return plain.path, made.path


def test_the_graph_shows_stored_forms(bundles: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for path in (bundles[1], bundles[1].with_name("quantised.zip")):
        with pytest.raises(SystemExit) as caught:
            main.main(["graph", str(path)])
        out = capsys.readouterr().out
        assert caught.value.code == 0
        assert "stored_form" in out
        assert "int4, groups of 32" in out
        assert "model.embed_tokens.weight.int8" in out
    with pytest.raises(SystemExit) as caught:
        main.main(["graph", str(bundles[1]), "--quantise", "int8"])
    assert caught.value.code == 1
    assert "holds quantised weights already" in capsys.readouterr().err


@pytest.mark.slow
def test_generate_and_evaluate(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    done = autoglm("generate", bundles[1].with_name("quantised.zip"), "pub 1", "--max-new-tokens", "8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    refused = autoglm("generate", bundles[1], "pub 1", "--quantise", "int8")
    assert refused.returncode == 1
    assert "holds quantised weights already" in refused.stderr
    (tmp_path / "data.jsonl").write_text(RECORDS)
    done = autoglm("evaluate", bundles[1], "--data", tmp_path / "data.jsonl", "--source", "source", "--target", "target",
                   "--metrics", "bleu", "--output", tmp_path / "scores", "--bootstrap", "20")
    assert done.returncode == 0, done.stderr
    assert "3 records" in done.stdout


@pytest.mark.slow
def test_serve_and_check(bundles: tuple[Path, Path]) -> None:
    done = autoglm("check", bundles[1])
    assert done.returncode == 0, done.stderr
    assert "quantised.safetensors" in done.stdout
    process = start("serve", bundles[1], "--port", "0", "--threads", "1", "--name", "tiny")
    try:
        assert process.stderr is not None
        found = next(found for line in process.stderr if (found := re.search(rb"serving (http\S+)", line)))
        asked = urllib.request.Request(f"{found[1].decode()}/v1/completions", method="POST", headers={
            "Content-Type": "application/json"}, data=json.dumps({"model": "tiny", "prompt": "The Punter",
                                                                  "max_tokens": 8, "ignore_eos": True}).encode())
        with urllib.request.urlopen(asked, timeout=60) as reply:
            assert json.load(reply)["usage"]["completion_tokens"] == 8
    finally:
        process.kill()
        process.communicate()
