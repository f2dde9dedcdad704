"""Released checkpoints, folders without a card: what is read of them, and bundles that are made of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from openautoglm.cli.compress_table import print_outcome
from openautoglm.core.errors import AutoGLMError, BundleError, CompressError, SpecError, TaskError
from openautoglm.models import hf
from openautoglm.models.bundle import open_bundle
from openautoglm.models.card import CARD_NAME
from openautoglm.pipeline.compressing import measure as measuring
from openautoglm.pipeline.compressing import run as running
from openautoglm.pipeline.compressing.checks import metric_faults
from openautoglm.pipeline.compressing.material import of_files
from openautoglm.pipeline.compressing.options import material_of
from openautoglm.pipeline.compressing.plain import open_parent
from openautoglm.pipeline.compressing.recipe import Recipe, make_recipe
from openautoglm.pipeline.compressing.run import Outcome, compress_bundle
from openautoglm.text.tokenizer import Tokenizer

WORDS = ("The pump of hall {0} ran hot.", "Nothing to report from site {0}.", "Valve {0} was closed at noon.")
TEXTS = [WORDS[number % 3].format(number) for number in range(24)]


@pytest.fixture(autouse=True)
def _weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speed and memory are measured by other tests; here they are given."""
    monkeypatch.setattr(measuring, "weigh", lambda folder, *_: {
        "peak_bytes": 10**7, "weight_bytes": 10**5, "cache_bytes": 10**4, "load_s": 0.1, "tokens_per_s_1": 50.0,
        "tokens_per_s_8": 200.0, "target": "native"})


@pytest.fixture(scope="module", params=["glm", "glm4"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in bf16 in several files, as transformers writes them, with a tokenizer of GLM-4's tokens."""
    from transformers import Glm4Config, Glm4ForCausalLM, GlmConfig, GlmForCausalLM

    folder = tmp_path_factory.mktemp("released") / request.param
    tokenizer = Tokenizer.train(TEXTS, 280)
    facts = {"vocab_size": 288, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 96, "max_position_embeddings": 512,
             "attention_bias": request.param == "glm", "initializer_range": 0.1,
             "pad_token_id": tokenizer.special["<|endoftext|>"],
             "eos_token_id": [tokenizer.special[name] for name in ("<|endoftext|>", "<|user|>")]}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = (GlmForCausalLM(GlmConfig(**facts)) if request.param == "glm"
                      else Glm4ForCausalLM(Glm4Config(**facts)))
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="60KB")
    tokenizer.save(folder)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    return folder


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(TEXTS))
    return path


def compressed(checkpoint: Path, out: Path, texts: Path, *steps: Any) -> Outcome:
    parent = open_parent(checkpoint)
    return compress_bundle(parent, out, make_recipe({"recipe": list(steps), "quality": 0.01, "texts": 6}),
                           of_files(parent, [str(texts)], [], None))


@pytest.mark.parametrize("steps", [
    pytest.param([{"method": "gptq", "inputs": "quantised"}, "kv"], id="gptq-kv"),
    pytest.param(["kv"], id="kv"),
    pytest.param([{"method": "prune", "score": "wanda", "form": "unstructured", "recover": {"passes": 0}},
                  {"method": "mixed", "tokens": 64, "average_bits": 6}], id="prune-mixed"),
])
def test_a_checkpoint_becomes_a_bundle(checkpoint: Path, tmp_path: Path, texts: Path, steps: list[Any]) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in checkpoint.iterdir()}
    outcome = compressed(checkpoint, tmp_path / "out", texts, *steps)
    bundle = open_bundle(tmp_path / "out", packed=True)
    assert bundle.spec == open_parent(checkpoint).spec
    assert (bundle.template.kind, bundle.card.dtype) == ("glm4", "bfloat16")
    assert [step["method"] for step in bundle.card.recipe["compress"]] == [
        step if isinstance(step, str) else step["method"] for step in steps]
    assert outcome.child.kl is not None
    assert 0 <= outcome.child.kl < 0.5
    assert outcome.child.perplexity == pytest.approx(outcome.parent.perplexity, rel=0.6)
    assert (outcome.metric, list(outcome.parent.scores)) == ("perplexity", ["bits_per_byte"])
    facts = bundle.card.scores["compression"]
    assert set(facts["parent_files"]) == set(before) - {"model.safetensors.index.json"}
    assert {file.name: file.stat().st_mtime_ns for file in checkpoint.iterdir()} == before
    model, _ = hf.load(tmp_path / "out", dtype=torch.float32)
    with torch.no_grad():
        assert torch.isfinite(model(torch.tensor([[5, 6, 7]])).logits).all()


def test_a_parent_that_does_not_fit_into_memory_is_measured_layer_by_layer(
        checkpoint: Path, tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compressed(checkpoint, tmp_path / "whole", texts, "rtn")
    monkeypatch.setattr(running, "fits_together", lambda *_: False)
    apart = compressed(checkpoint, tmp_path / "apart", texts, "rtn")
    assert apart.bundle.card.files == whole.bundle.card.files
    assert (apart.parent.target, apart.parent.tokens_per_s, apart.parent.peak_bytes) == ("layer by layer", {}, 0)
    assert apart.child.tokens_per_s == {"1": 50.0, "8": 200.0}
    assert apart.child.tokens == whole.child.tokens
    assert apart.parent.perplexity == pytest.approx(whole.parent.perplexity, rel=0.02)
    assert apart.child.perplexity == pytest.approx(whole.child.perplexity, rel=0.05)
    assert apart.child.kl is not None
    assert 0 < apart.child.kl < 0.1
    print_outcome(apart)
    (tmp_path / "pairs.csv").write_text("ask,answer\n" + "".join(f"hall {n},it ran hot\n" for n in range(8)))
    parent = open_parent(checkpoint)
    pairs = of_files(parent, [str(tmp_path / "pairs.csv")], [], None, source="ask", target="answer")
    with pytest.raises(CompressError, match="its bleu cannot be measured"):
        compress_bundle(parent, tmp_path / "out", make_recipe({"recipe": "rtn"}), pairs)


def test_memory_decides_how_a_parent_is_measured(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = open_parent(checkpoint)
    size = measuring.size_of(parent)
    monkeypatch.setattr(measuring, "free_bytes", lambda: 1 << 30)
    assert measuring.fits_together(parent, None)
    assert measuring.fits_together(parent, 2 * size)
    assert not measuring.fits_together(parent, size)
    monkeypatch.setattr(measuring, "free_bytes", lambda: 100 << 20)
    assert not measuring.fits_together(parent, None)


def test_weights_in_several_files_become_one_without_a_change(checkpoint: Path, tmp_path: Path, texts: Path) -> None:
    compressed(checkpoint, tmp_path / "out", texts, "kv")
    whole, parts = hf.load(tmp_path / "out")[0].state_dict(), hf.load(checkpoint)[0].state_dict()
    assert set(whole) == set(parts)
    assert all(torch.equal(whole[name], parts[name]) for name in parts)
    assert (tmp_path / "out/model.safetensors").is_file()


def test_answers_are_judged_where_columns_are_named(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("ask,answer\n" + "".join(f"hall {n},it ran hot\n" for n in range(8)))
    parent = open_parent(checkpoint)
    pairs = of_files(parent, [str(tmp_path / "pairs.csv")], [], None, source="ask", target="answer")
    assert pairs.paired
    ids, first = pairs.texts(parent, 1)[0]
    special = parent.tokenizer.special
    assert ids[:3] == [special["[gMASK]"], special["<sop>"], special["<|user|>"]]
    assert ids[first - 1] == special["<|assistant|>"]


def test_what_a_checkpoint_cannot_give_is_said_first(checkpoint: Path, tmp_path: Path, texts: Path) -> None:
    parent = open_parent(checkpoint)
    plain = of_files(parent, [str(texts)], [], None)
    for recipe, said in (({"recipe": "rtn", "metric": "bleu"}, "the data is plain text"),
                         ({"recipe": "prune"}, "no run to take tokens from"),
                         ({"recipe": ["distill"]}, "no run to take examples from")):
        with pytest.raises(TaskError, match=said):
            compress_bundle(parent, tmp_path / "out", make_recipe(recipe), plain)
    with pytest.raises(CompressError, match="no data to measure on") as caught:
        material_of(parent, checkpoint, run=None, data=[], calibration=[], most=None, source=None, target=None)
    assert "--data" in str(caught.value.remedy)
    assert not (tmp_path / "out").exists()


def test_a_text_without_blank_lines_is_read_line_by_line(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("\n".join(TEXTS))
    found = of_files(open_parent(checkpoint), [str(tmp_path / "lines.txt")], [], None)
    measured, shown = {case.references[0] for case in found.cases}, {example.target for example in found.examples}
    assert measured | shown == set(TEXTS)
    assert not measured & shown


def _without_shard(folder: Path) -> None:
    next(folder.glob("model-*.safetensors")).unlink()


def _without(name: str) -> Any:
    return lambda folder: (folder / name).unlink()


def _changed(**facts: Any) -> Any:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | facts))

    return change


@pytest.mark.parametrize(("damage", "kind", "message"), [
    pytest.param(_without_shard, BundleError, "cannot be read", id="shard"),
    pytest.param(_without("tokenizer.json"), BundleError, "lacks tokenizer.json", id="tokenizer"),
    pytest.param(_without("generation_config.json"), BundleError, "lacks generation_config.json", id="generation"),
    pytest.param(_changed(intermediate_size=128), BundleError, "the architecture needs", id="shape"),
    pytest.param(_changed(model_type="chatglm"), SpecError, "needs code of its own", id="family"),
    pytest.param(_without("config.json"), BundleError, CARD_NAME, id="config"),
])
def test_damaged_checkpoints_are_named(checkpoint: Path, tmp_path: Path, damage: Any, kind: type[AutoGLMError],
                                       message: str) -> None:
    shutil.copytree(checkpoint, tmp_path / "it")
    damage(tmp_path / "it")
    with pytest.raises(kind, match=message) as caught:
        open_parent(tmp_path / "it")
    assert caught.value.remedy


def test_bits_per_byte_may_count_where_texts_are_plain() -> None:
    recipe = Recipe.model_validate({"recipe": "rtn", "metric": "bits_per_byte"})
    assert list(metric_faults(recipe, paired=False, fields=False)) == []
    assert [key for key, _, _ in metric_faults(recipe, paired=True, fields=False)] == [("metric",)]
