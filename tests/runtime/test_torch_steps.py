"""However rows come in steps, a sequence gets the same tokens: its cache is its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from runtime_models import PAGES, Reader, apart, random_ids, reference

from openautoglm.core.errors import GraphError, ResourceError
from openautoglm.graph.recipe import Quantisation
from openautoglm.graph.rules.registry import rules_for
from openautoglm.runtime import torch_attention
from openautoglm.runtime.layout import Part, lay_out
from openautoglm.runtime.load import load_program
from openautoglm.runtime.program import Program

PROMPT, NEW = 13, 8


def load(written: Any, **options: Any) -> Program:
    return load_program(written.folder, **{"page_size": 4, "pages": PAGES, "cache": "fp32", **options})


def greedy(reader: Reader, chunks: Sequence[Sequence[int]], name: str = "a", count: int = NEW) -> list[int]:
    """Feed a prompt in chunks, then take the likeliest token `count` times."""
    for chunk in chunks:
        logits = reader.step({name: chunk})[name]
    tokens = [int(logits[-1].argmax())]
    while len(tokens) < count:
        tokens.append(int(reader.step({name: tokens[-1:]})[name][-1].argmax()))
    return tokens


def expected(written: Any, prompt: list[int]) -> list[int]:
    tokens: list[int] = []
    for _ in range(NEW):
        tokens.append(int(reference(written.model, prompt + tokens)[-1].argmax()))
    return tokens


@pytest.mark.parametrize("cuts", [[], [5], [4, 8], [1, 2, 12], list(range(1, PROMPT))])
def test_chunks_of_any_size_give_the_same_tokens(written: Any, cuts: list[int]) -> None:
    prompt = random_ids(written.spec, PROMPT)
    chunks = [piece.tolist() for piece in np.split(np.array(prompt), cuts)]
    assert greedy(Reader(load(written)), chunks) == expected(written, prompt)


@pytest.mark.parametrize("most_gathered", [1, 20, 8192])
def test_other_sequences_in_the_step_change_nothing(written: Any, monkeypatch: pytest.MonkeyPatch,
                                                    most_gathered: int) -> None:
    monkeypatch.setattr(torch_attention, "MOST_GATHERED", most_gathered)
    prompts = {name: random_ids(written.spec, length, length) for name, length in
               {"a": 13, "b": 1, "c": 22, "d": 6}.items()}
    reader, tokens = Reader(load(written)), {name: list[int]() for name in prompts}
    first = reader.step({"a": prompts["a"][:7], "b": prompts["b"], "d": prompts["d"][:4]})
    tokens["b"].append(int(first["b"][-1].argmax()))
    mixed = reader.step({"b": tokens["b"][-1:], "a": prompts["a"][7:], "c": prompts["c"], "d": prompts["d"][4:]})
    for name, logits in mixed.items():
        tokens[name].append(int(logits[-1].argmax()))
    while any(len(some) < NEW for some in tokens.values()):
        for name, logits in reader.step({name: some[-1:] for name, some in tokens.items()}).items():
            tokens[name].append(int(logits[-1].argmax()))
    assert {name: some[:NEW] for name, some in tokens.items()} == {
        name: expected(written, prompt) for name, prompt in prompts.items()}


def test_pages_may_be_used_again(written: Any) -> None:
    reader, prompt = Reader(load(written, pages=6), range(6)), random_ids(written.spec, PROMPT)
    for round_ in range(3):
        greedy(reader, [random_ids(written.spec, 9 + round_, round_)], "other")
        reader.end("other")
        assert greedy(reader, [prompt]) == expected(written, prompt)
        reader.end("a")


def test_sequences_may_share_the_pages_of_a_prefix(written: Any) -> None:
    program, prompt = load(written), random_ids(written.spec, 12)
    reader = Reader(program)
    reader.step({"a": prompt[:8]})
    reader.pages["b"], reader.lengths["b"] = list(reader.pages["a"]), 8
    both = reader.step({"a": prompt[8:], "b": prompt[:3]})
    assert apart(both["a"], reference(written.model, prompt)[8:]) < 1e-5
    assert apart(both["b"], reference(written.model, prompt[:8] + prompt[:3])[8:]) < 1e-5


def test_a_copied_page_lets_a_sequence_go_its_own_way(written: Any) -> None:
    for cache in ("fp32", "int8"):
        reader, prompt = Reader(load(written, cache=cache)), random_ids(written.spec, 10)
        reader.step({"a": prompt[:6]})
        shared, own = reader.pages["a"]
        copy = reader.free.pop()
        reader.program.copy_pages([own], [copy])
        reader.pages["b"], reader.lengths["b"] = [shared, copy], 6
        both = reader.step({"a": prompt[6:], "b": prompt[6:]})
        assert np.allclose(both["a"], both["b"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("options", "limit"), [({"cache": "bf16"}, 0.01), ({"cache": "int8"}, 0.03),
                                                ({"cache": "int8", "dtype": "bf16"}, 0.05)])
def test_rounded_caches_stay_close(written: Any, options: dict[str, Any], limit: float) -> None:
    ids, reader = random_ids(written.spec, 30), Reader(load(written, **options))
    logits = np.concatenate([reader.step({"a": ids[:17]})["a"], *(reader.step({"a": [one]})["a"] for one in ids[17:])])
    distance = apart(logits, reference(written.model, ids))
    assert 1e-5 < distance < limit


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize(("recipe", "family", "limit"), [
    (Quantisation(), "torch", 0.03), (Quantisation(symmetric=False, head="bf16"), "torch", 0.03),
    (Quantisation(format="int4"), "torch", 0.3), (Quantisation(group=0), "native", 0.04)])
def test_quantised_weights_stay_close(written: Any, recipe: Quantisation, family: str, limit: float,
                                      dtype: str) -> None:
    ids = random_ids(written.spec, 30)
    program = load(written, dtype=dtype, rules=rules_for(family, recipe))
    assert program.facts.weight_bytes < load(written, dtype="bf16").facts.weight_bytes
    distance = apart(Reader(program).step({"a": ids})["a"], reference(written.model, ids))
    assert 1e-4 < distance < limit


def test_only_wanted_rows_are_answered_in_their_order(written: Any) -> None:
    program, ids = load(written), np.array(random_ids(written.spec, 9), np.int32)
    layout = lay_out([Part(9, 0, [0, 1, 2])], page_size=4, pages=PAGES)
    everything = program.step(ids, layout.positions, layout, np.arange(9, dtype=np.int32))
    some = program.step(ids, layout.positions, layout, np.array([8, 2, 2], np.int32))
    assert some.dtype == np.float32
    assert np.allclose(some, everything[[8, 2, 2]], rtol=1e-5, atol=1e-5)
    nothing = program.step(ids, layout.positions, layout, np.array([], np.int32))
    assert nothing.shape == (0, written.spec.vocab_size)


def test_steps_that_do_not_fit_are_refused(written: Any) -> None:
    program = load(written, max_rows=8, max_wanted=2)
    layout = lay_out([Part(3, 0, [0])], page_size=4, pages=PAGES)
    ids, wanted = np.array([1, 2, 3], np.int32), np.array([2], np.int32)
    for changes, message in [({"ids": ids[:2]}, "ids have shape"), ({"ids": ids + 94}, "ids lie between 95 and 97"),
                             ({"ids": -ids}, "ids lie between -3"), ({"wanted": wanted + 1}, "wanted lie between 3"),
                             ({"positions": ids + 64}, "positions lie between"),
                             ({"layout": lay_out([Part(3, 0, [0])], page_size=8, pages=2)}, "another cache"),
                             ({"layout": lay_out([Part(3, 0, [PAGES])], page_size=4, pages=99)}, "another cache")]:
        given: dict[str, Any] = {"ids": ids, "positions": layout.positions, "layout": layout, "wanted": wanted}
        with pytest.raises(GraphError, match=message):
            program.step(**(given | changes))
    long = lay_out([Part(9, 0, [0, 1, 2])], page_size=4, pages=PAGES)
    with pytest.raises(ResourceError, match="larger max_rows"):
        program.step(np.zeros(9, np.int32), long.positions, long, wanted)
    with pytest.raises(ResourceError, match="one to one"):
        program.copy_pages([0, 1], [2])
    with pytest.raises(ResourceError, match="numbers below 40"):
        program.copy_pages([0], [PAGES])
