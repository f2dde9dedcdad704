"""The benchmark of distillation on a tiny run: every way, a cell once, a line that a stop cut short again."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from openautoglm.core.values import Example, Origin
from openautoglm.data.jsonl import encode_example
from openautoglm.models import hf
from openautoglm.models.bundle_writer import write_bundle
from openautoglm.models.spec import GlmSpec
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TEXTS = [f"Alfa serves Thai food near place {number}." for number in range(24)]
STUDENT = {"hidden_size": 16, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 8, "ffn_size": 24}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import distill as module

    return module


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder: its seed, its data, a model, and texts of that model with one that never ended."""
    folder, tokenizer, template = tmp_path / "run", Tokenizer.train(TEXTS, 300), Template(kind="pair")
    spec = GlmSpec(vocab_size=304, hidden_size=32, layers=2, heads=4, kv_heads=2, head_dim=8, ffn_size=48, tied=True,
                   rotary_factor=1.0, qkv_bias=False, pad_id=tokenizer.pad_id, eos_ids=template.stop_ids(tokenizer))
    write_bundle(folder / "train" / "model", model=hf.build(spec, seed=3), spec=spec, tokenizer=tokenizer,
                 template=template, card_facts={"data": "made up", "recipe": {"name": "t"}})
    (folder / "task.json").write_text('{"task": {"seed": 7}}')
    for name, texts in (("data/train", TEXTS), ("data/valid", TEXTS[:3]), ("data/test", TEXTS[3:5]),
                        ("self_distill/targets", [*TEXTS[:8], ""])):
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(encode_example(Example(f"place {number}", text, Origin("x", number))) + "\n"
                                for number, text in enumerate(texts)))
    return folder


def test_every_way_is_a_row_once(bench: ModuleType, run: Path, tmp_path: Path,
                                 capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.jsonl"
    given = ["--runs", str(run), "--student", json.dumps(STUDENT), "--tokens", "500", "--batch", "8", "--cases", "2",
             "--folder", str(tmp_path / "cells"), "--out", str(out)]
    bench.main(given)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["way"] for row in rows] == list(bench.WAYS)
    assert {row["seed"] for row in rows} == {7}
    assert all(500 <= row["tokens"] < 1000 and set(row["bleu"]) == {"valid", "test"} for row in rows)
    passes = {row["way"]: row["passes"] for row in rows}
    assert passes["response"] == passes["combined"] > 2 * passes["alone"]  # eight texts in place of 24
    told = capsys.readouterr().out
    assert all(f"| {way} | 1 |" in told for way in bench.WAYS)

    whole = out.read_bytes()
    bench.main(given)
    assert out.read_bytes() == whole

    out.write_bytes(whole[:-20])  # the last line is cut: its cell is done again, and is the same
    bench.main(given)
    again = list(bench.finished(out).values())
    assert [row["loss"] for row in again] == [row["loss"] for row in rows]


def test_a_held_cell_is_left_to_its_process(bench: ModuleType, tmp_path: Path) -> None:
    with bench.held(tmp_path / "cell") as first, bench.held(tmp_path / "cell") as second:
        assert (first, second) == (True, False)
    with bench.held(tmp_path / "cell") as third:
        assert third


def test_gains_are_means_of_the_seeds_differences(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cell:
        def __init__(self, way: str, seed: int, value: float) -> None:
            self.way, self.seed, self.identity = way, seed, f"{way}{seed}"
            self.row = {"tokens": 9, "passes": 1, "bleu": {"valid": value, "test": value}}

    cells = [Cell("alone", 1, 10.0), Cell("alone", 2, 14.0), Cell("logits", 1, 13.0), Cell("logits", 2, 15.0)]
    monkeypatch.setattr(bench, "finished", lambda _out: {cell.identity: cell.row for cell in cells})
    line = bench.table(cells, Path()).splitlines()[-1]
    assert line.startswith("| logits | 2 | 1 | 9 | 14.00 | 1.41 | +2.00 (+3.00, +1.00) |")
