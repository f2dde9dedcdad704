"""``autoglm compress`` on a finished run: steps, figures on the card, resumption, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command_line import autoglm
from openautoglm.core.errors import CompressError, TaskError, TrainError
from openautoglm.core.values import Example, Origin
from openautoglm.evaluate.run import group_cases
from openautoglm.evaluate.settings import EvaluateSettings
from openautoglm.models.bundle import open_bundle
from openautoglm.pipeline.compressing import measure as measuring
from openautoglm.pipeline.compressing import run as running
from openautoglm.pipeline.compressing.material import Material, of_files, of_run
from openautoglm.pipeline.compressing.measure import weigh
from openautoglm.pipeline.compressing.recipe import Recipe, make_recipe
from openautoglm.pipeline.compressing.run import compress_bundle
from openautoglm.pipeline.engines import author_of

SMALL: dict[str, Any] = {"cases": 6, "texts": 6, "calibration": 16, "quality": 0.01,
                         "evaluate": {"metrics": ["bleu", "chrf"]}}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates are told, not judged: a few tokens do."""
    monkeypatch.setattr(measuring, "_TOKENS", 4)
    monkeypatch.setattr(measuring, "_REPEATS", 1)


@pytest.fixture
def material(finished: Path) -> Material:
    return of_run(finished / "runs/tiny", 6)


def recipe(*steps: dict[str, Any] | str, **more: Any) -> Recipe:
    return make_recipe({**SMALL, "recipe": list(steps), **more})


def test_the_verb_measures_and_writes_a_card(finished: Path, tmp_path: Path) -> None:
    done = autoglm("compress", finished / "runs/tiny/bundle", "-o", tmp_path / "small", "--recipe", "rtn,kv", "--bits",
                   "8", "--group", "0", "--quality", "0.01", "--cases", "6", "--bundle-size", "9kB")
    assert done.returncode == 3, done.stderr
    assert "KL to the parent" in done.stdout
    assert "missed: the bundle has" in done.stdout
    bundle = open_bundle(tmp_path / "small")
    facts = bundle.card.scores["compression"]
    assert [step["method"] for step in bundle.card.recipe["compress"]] == ["rtn", "kv"]
    assert bundle.card.recipe["engine"] == {"cache": "int8"}
    assert facts["measured"]["size_bytes"] < facts["parent"]["size_bytes"]
    assert facts["measured"]["kl"] > 0
    assert facts["parent"]["kl"] is None
    assert set(facts["measured"]["tokens_per_s"]) == {"1", "8"}
    assert facts["missed"]
    assert not (tmp_path / "small.work").exists()
    done = autoglm("generate", tmp_path / "small", "Echo | Greek | park | cheap", "--max-new-tokens", "4")
    assert done.returncode == 0, done.stderr


def test_what_is_wrong_is_said_before_anything_runs(finished: Path, tmp_path: Path) -> None:
    bundle = finished / "runs/tiny/bundle"
    for arguments, said in (((bundle, "--recipe", "gtpq"), "neither a method"),
                            ((finished / "out.zip", "--recipe", "rtn"), "no data to measure on"),
                            ((tmp_path / "nowhere", "--recipe", "rtn"), "does not exist"),
                            ((bundle, "--recipe", "rtn", "--run", tmp_path), "no cleaned data")):
        done = autoglm("compress", *arguments, "-o", tmp_path / "out")
        assert done.returncode in (1, 2)
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_stopped_call_goes_on(finished: Path, tmp_path: Path, material: Material, monkeypatch: pytest.MonkeyPatch,
                                stopped: Callable[[Callable[[], Any]], list[str]]) -> None:
    parent, asked = open_bundle(finished / "runs/tiny/bundle"), recipe({"method": "rtn", "group": 0})
    steps = stopped(lambda: compress_bundle(parent, tmp_path / "out", asked, material))
    with monkeypatch.context() as patch:
        patch.setattr(running, "measure", lambda *_: pytest.fail("it was measured again"))
        outcome = compress_bundle(parent, tmp_path / "out", asked, material)
    assert steps == ["rtn"]
    assert outcome.bundle.path == tmp_path / "out"
    assert outcome.child.kl is not None
    with pytest.raises(CompressError, match="place of its parent"):
        compress_bundle(outcome.bundle, tmp_path / "out", asked, material)


def test_pruning_comes_before_quantising(finished: Path, tmp_path: Path, material: Material) -> None:
    outcome = compress_bundle(
        finished / "runs/tiny/bundle", tmp_path / "out", recipe(
            {"method": "prune", "sparsity": 0.5, "multiple": 8, "recover": {"passes": 0.5}},
            {"method": "rtn", "bits": 8, "group": 0}), material)
    spec = open_bundle(finished / "runs/tiny/bundle").spec
    assert outcome.bundle.spec.ffn_size < spec.ffn_size
    assert [step["method"] for step in outcome.bundle.card.recipe["compress"]] == ["prune", "rtn"]


def test_a_student_is_distilled_and_quantised(finished: Path, tmp_path: Path, material: Material) -> None:
    parent = finished / "runs/tiny/bundle"
    outcome = compress_bundle(parent, tmp_path / "out", recipe(
        {"method": "distill", "student": {"hidden_size": 8, "ffn_size": 16}, "passes": 0.5, "alpha": 0.5},
        {"method": "rtn", "bits": 8, "group": 0}), material)
    assert (outcome.bundle.spec.hidden_size, outcome.bundle.spec.ffn_size) == (8, 16)
    assert [step["method"] for step in outcome.bundle.card.recipe["compress"]] == ["distill", "rtn"]
    alone = Material(material.cases, material.examples)
    for asked, said in ((recipe("distill"), "no run to take examples from"),
                        (recipe("prune"), "no run to take tokens from"),
                        (recipe({"method": "rtn", "group": 128}), "groups of 128 do not divide"),
                        (recipe({"method": "distill", "student": {"kv_heads": 3}}), "cannot share"),
                        (recipe("rtn", bundle_size=100), "cannot be reached")):
        with pytest.raises(TaskError, match=said):
            compress_bundle(parent, tmp_path / "other", asked, alone)
    assert not (tmp_path / "other").exists()


def test_adapters_are_merged(finished: Path, tmp_path: Path, material: Material) -> None:
    import torch

    from openautoglm.train.lora import LoraSettings, add_lora

    parent = open_bundle(finished / "runs/tiny/bundle")
    model = add_lora(parent.model(), LoraSettings())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    model.save_pretrained(str(tmp_path / "adapter"))
    wanted = model.merge_and_unload().state_dict()
    asked = recipe({"method": "merge-lora", "adapter": "adapter"})
    outcome = compress_bundle(parent, tmp_path / "out", asked, material, here=tmp_path)
    found = outcome.bundle.model().state_dict()
    assert all(torch.allclose(found[name], value) for name, value in wanted.items())
    assert outcome.child.kl is not None
    assert outcome.child.kl > 0
    with pytest.raises(TrainError, match="holds no adapters"):
        compress_bundle(parent, tmp_path / "other", asked, material, here=tmp_path / "nowhere")


def test_auto_tries_and_chooses(finished: Path, tmp_path: Path, material: Material) -> None:
    outcome = compress_bundle(finished / "runs/tiny/bundle", tmp_path / "out", make_recipe({**SMALL, "quality": 0.5,
                              "metric": "perplexity"}), material)
    assert outcome.choice is not None
    assert outcome.choice.chosen.fits
    assert outcome.choice.told() == outcome.bundle.card.scores["compression"]["choice"]
    assert outcome.child.size_bytes < outcome.parent.size_bytes


def test_files_are_split_into_shown_and_measured(finished: Path) -> None:
    bundle = open_bundle(finished / "runs/tiny/bundle")
    found = of_files(bundle, [str(finished / "test.csv")], [], 1000)
    shown = {example.source for example in found.examples}
    assert found.cases
    assert shown
    assert not shown & {case.source for case in found.cases}
    apart = of_files(bundle, [str(finished / "test.csv")], [str(finished / "train.csv")], 3)
    assert len(apart.cases) == 3
    assert len(apart.examples) > len(shown)
    ids, first = apart.texts(bundle, 2)[0]
    assert 1 <= first < len(ids)


def test_plain_text_has_bits_per_byte(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(finished / "runs/tiny/bundle")
    texts = ["Echo is a cheap place in the park.", "Greek food", "too long for the model " * 3000]
    cases = group_cases([Example("", text, Origin("", 0)) for text in texts])
    told = {"peak_bytes": 1, "weight_bytes": 1, "cache_bytes": 1, "load_s": 1.0, "target": "", "tokens_per_s_1": 1.0,
            "tokens_per_s_8": 1.0}
    monkeypatch.setattr(measuring, "weigh", lambda *_: told)
    found = measuring.measure(bundle, bundle, Material(cases, []), 2, EvaluateSettings(), running_settings())
    said = author_of(bundle, running_settings()).likelihoods(cases[:2], texts[:2])
    bits = -sum(one.logprob for one in said) / sum(one.bytes for one in said) / math.log(2)
    assert found.scores == {"bits_per_byte": pytest.approx(bits)}


def test_a_bundle_that_cannot_be_served_is_told(tmp_path: Path) -> None:
    with pytest.raises(CompressError, match="cannot be served"):
        weigh(tmp_path, running_settings(), [[1, 2]])
    with pytest.raises(CompressError, match="ended with 7: no luck"):
        weigh(tmp_path, running_settings(), [[1, 2]], command=("sh", "-c", "cat >/dev/null; echo no luck >&2; exit 7"))


def running_settings() -> Any:
    from openautoglm.engine.open import ProgramSettings

    return ProgramSettings()
