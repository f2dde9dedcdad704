"""Recipes are read with all their faults named, and the choice among candidates follows the targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openautoglm.compress.settings import GptqSettings, RtnSettings
from openautoglm.core.errors import CompressError, TaskError
from openautoglm.models.presets import PRESETS
from openautoglm.pipeline.compressing.auto import Candidate, Plan, candidates, choose, settled
from openautoglm.pipeline.compressing.measure import Measured, kept
from openautoglm.pipeline.compressing.options import recipe_of
from openautoglm.pipeline.compressing.recipe import Recipe, load_recipe, make_recipe


def measured(size: int = 100, *, bleu: float = 50.0, rate: float = 10.0, peak: int = 1000, **more: Any) -> Measured:
    """Figures that are made up."""
    return Measured(**{"size_bytes": size, "peak_bytes": peak, "weight_bytes": 1, "cache_bytes": 1, "load_s": 0.1,
                       "tokens_per_s": {"1": rate, "8": rate}, "scores": {"bleu": bleu, "ter": 40.0}, "perplexity": 8.0,
                       **more})


def candidate(name: str, size: int, share: float, *, fits: bool = True, rate: float = 10.0, bits: int = 8) -> Candidate:
    return Candidate(name, (RtnSettings(bits=bits),), measured(size, rate=rate), share, fits)


def test_a_recipe_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("recipe:\n  - {method: prune, sparsity: 0.4}\n  - {method: gptq, bits: 4, group: 64}\n  - kv\n"
                    "quality: 0.97\nbundle_size: 20MB\n")
    recipe = load_recipe(path)
    assert [step.method for step in recipe.recipe] == ["prune", "gptq", "kv"]
    assert (recipe.quality, recipe.bundle_size, recipe.memory) == (0.97, 20_000_000, None)
    assert load_recipe(path, {"quality": 0.9}).quality == 0.9


@pytest.mark.parametrize(("text", "said"), [
    ("recipe: [{method: gptq, bits: 5}]", "line 1"), ("recipe: [gptq, awq]", "quantised once"),
    ("recipe: [gptq, prune]", "only kv"), ("recipe: []", "at least one step"), ("recipe: [gpttq]", "gptq"),
    ("quality: 2", "quality"), ("qualiti: 1", "did you mean quality"), ("metric: bluue", "no metric"),
    ("- a", "a mapping"), ("recipe: {method: rtn, group: 7}", "group"), ("bundle_size: big", "not a size")],
    ids=["bits", "twice", "after", "none", "method", "quality", "key", "metric", "list", "group", "size"])
def test_faults_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text + "\n")
    with pytest.raises(TaskError) as caught:
        load_recipe(path)
    assert said in str(caught.value)
    with pytest.raises(TaskError, match="cannot be read"):
        load_recipe(tmp_path / "none.yaml")


def test_options_make_a_recipe(tmp_path: Path) -> None:
    recipe, _ = recipe_of("prune, gptq,kv", bits=4, group=128, given={"quality": 0.9, "metric": None})
    assert [step.method for step in recipe.recipe] == ["prune", "gptq", "kv"]
    assert recipe.recipe[1] == GptqSettings(bits=4, group=128)
    assert recipe_of("auto", bits=None, group=None, given={})[0].recipe == "auto"
    mixed, _ = recipe_of("mixed", bits=None, group=64, given={})
    assert mixed.recipe[0].base == GptqSettings(group=64)  # type: ignore[union-attr]
    path = tmp_path / "r.yaml"
    path.write_text("recipe: rtn\n")
    assert recipe_of(str(path), bits=None, group=None, given={"quality": 0.5})[1] == tmp_path
    for text, bits in (("rtnn", None), ("auto", 4), ("kv", 4), ("mixed", 4), (str(path), 8)):
        with pytest.raises(TaskError):
            recipe_of(text, bits=bits, group=None, given={})


def test_what_is_kept_follows_the_metrics_direction() -> None:
    before, after = measured(), measured(bleu=49.0, scores={"bleu": 49.0, "ter": 50.0}, perplexity=10.0)
    assert kept("bleu", before, after) == pytest.approx(0.98)
    assert kept("ter", before, after) == pytest.approx(0.8)
    assert kept("perplexity", before, after) == pytest.approx(0.8)
    with pytest.raises(CompressError, match="there is no chrf"):
        kept("chrf", before, after)


def test_the_smallest_that_fits_is_chosen_with_reasons() -> None:
    tried = [candidate("int8", 60, 1.0), candidate("rtn", 30, 0.9, fits=False, bits=4),
             candidate("gptq", 35, 0.99, bits=4), candidate("slow", 36, 0.98, rate=5.0)]
    choice = choose(tried, Recipe(), "bleu")
    assert choice.chosen.name == "gptq"
    assert {one.name for one in choice.front} == {"int8", "rtn", "gptq"}
    assert any("rtn is smaller" in reason for reason in choice.reasons)
    told = choice.told()
    assert (told["chosen"], len(told["tried"])) == ("gptq", 4)
    with pytest.raises(CompressError, match="none of 1 candidates"):
        choose([candidate("int8", 60, 0.5, fits=False)], Recipe(), "bleu")
    with pytest.raises(CompressError, match="none of 0"):
        choose([], Recipe(), "bleu")


def test_plans_begin_with_the_cheapest_and_leave_out_what_is_needless() -> None:
    plans = list(candidates(PRESETS["tiny"], Recipe()))
    assert [plan.name for plan in plans] == ["int8", "int4 rtn", "int4 gptq", "int4 awq", "mixed 5", "mixed 6.5"]
    with_memory = list(candidates(PRESETS["tiny"], Recipe(memory=10**9)))
    assert [plan.name for plan in with_memory[6:8]] == ["int8, kv int8", "int4 rtn, kv int8"]
    good = [candidate("int4 rtn", 30, 0.99, bits=4)]
    assert [plan.name for plan in with_memory if not plan.needless(good, 0.98)] == [
        plan.name for plan in with_memory if "kv" in plan.name]
    assert not Plan("int4 gptq", (GptqSettings(),), 4).needless([candidate("int4 rtn", 30, 0.9, bits=4)], 0.98)
    odd = PRESETS["tiny"].model_copy(update={"ffn_size": 650})
    assert [plan.steps[0].group for plan in candidates(odd, Recipe())] == [0] * 4  # type: ignore[union-attr]


def test_targets_end_the_search_when_they_are_met() -> None:
    good = candidate("int8", 60, 1.0)
    assert not settled(good, Recipe())
    assert settled(good, make_recipe({"bundle_size": 70}))
    assert not settled(candidate("int8", 60, 1.0, fits=False), make_recipe({"bundle_size": 70}))
