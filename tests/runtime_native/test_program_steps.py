"""However rows come in steps a sequence gets the same logits, and what does not fit is refused before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from runtime_models import Reader, apart, random_ids, reference

from openautoglm.core.errors import GraphError, ResourceError
from openautoglm.graph.recipe import Quantisation
from openautoglm.runtime.layout import Part, lay_out
from openautoglm.runtime.load import load_program
from openautoglm.runtime.program import Program

PAGES = 24


def load(checkpoint: Any, **options: Any) -> Program:
    return load_program(checkpoint[0], "native", **{"cache": "fp32", "pages": PAGES, "threads": 2, **options})


@pytest.mark.parametrize("recipe", [None, Quantisation()], ids=["fp32", "int8"])
@pytest.mark.parametrize("cuts", [[5], [4, 20], [1, 2, 12, 33], list(range(1, 40))])
def test_chunks_of_any_size_give_the_same_logits(checkpoint: Any, cuts: Sequence[int], recipe: Any) -> None:
    ids = np.array(random_ids(checkpoint[1], 40))
    program = load(checkpoint, quantise=recipe)
    whole = Reader(program, range(12)).step({"a": ids.tolist()})["a"]
    reader = Reader(program, range(12, PAGES))
    chunks = [reader.step({"a": chunk.tolist()})["a"] for chunk in np.split(ids, cuts)]
    assert apart(np.concatenate(chunks), whole) < 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_batches_and_pages_of_any_order_give_the_same_logits(checkpoint: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reader = Reader(load(checkpoint, max_wanted=128), rng.permutation(PAGES).tolist())
    left = {name: random_ids(checkpoint[1], int(rng.integers(1, 60)), number) for number, name in enumerate("abcd")}
    fed: dict[str, list[int]] = {name: [] for name in left}
    while any(left.values()):
        given = {}
        for name in rng.permutation([name for name, ids in left.items() if ids]).tolist():
            count = int(rng.integers(1, min(len(left[name]), 25) + 1))
            given[name], left[name] = left[name][:count], left[name][count:]
        for name, logits in reader.step(given).items():
            fed[name] += given[name]
            expected = reference(checkpoint[2], fed[name])[-len(given[name]):]
            assert apart(logits, expected) < 1e-5


def test_only_wanted_rows_are_answered_in_their_order(checkpoint: Any) -> None:
    program, ids = load(checkpoint), np.array(random_ids(checkpoint[1], 9), np.int32)
    layout = lay_out([Part(9, 0, [0])], page_size=16, pages=PAGES)
    everything = program.step(ids, layout.positions, layout, np.arange(9, dtype=np.int32))
    some = program.step(ids, layout.positions, layout, np.array([8, 2, 2], np.int32))
    assert some.dtype == np.float32
    assert apart(some, everything[[8, 2, 2]]) < 1e-6
    nothing = program.step(ids, layout.positions, layout, np.array([], np.int32))
    assert nothing.shape == (0, checkpoint[1].vocab_size)
    wide = program.step(ids.astype(np.int64), layout.positions[::1].astype(np.int64), layout, np.arange(9))
    assert np.array_equal(wide, everything)


def test_a_copied_page_lets_a_sequence_go_its_own_way(checkpoint: Any) -> None:
    for cache in ("fp32", "bf16", "int8"):
        reader, prompt = Reader(load(checkpoint, cache=cache), range(PAGES)), random_ids(checkpoint[1], 24)
        reader.step({"a": prompt[:20]})
        shared, own = reader.pages["a"]
        copy = reader.free.pop()
        reader.program.copy_pages([own], [copy])
        reader.pages["b"], reader.lengths["b"] = [shared, copy], 20
        both = reader.step({"a": prompt[20:], "b": prompt[20:]})
        assert np.array_equal(both["a"], both["b"])


def test_steps_that_do_not_fit_are_refused_and_leave_the_program_whole(checkpoint: Any) -> None:
    program = load(checkpoint, max_rows=8, max_wanted=2)
    layout = lay_out([Part(3, 0, [0])], page_size=16, pages=PAGES)
    ids, wanted = np.array([1, 2, 3], np.int32), np.array([2], np.int32)
    before = program.step(ids, layout.positions, layout, wanted)
    for changes, message in [({"ids": ids[:2]}, "ids have shape"), ({"ids": ids + 94}, "ids lie between 95 and 97"),
                             ({"ids": -ids}, "ids lie between -3"), ({"wanted": wanted + 1}, "wanted lie between 3"),
                             ({"positions": ids + 64}, "positions lie between"),
                             ({"layout": lay_out([Part(3, 0, [0])], page_size=8, pages=2)}, "another cache"),
                             ({"layout": lay_out([Part(3, 0, [PAGES])], page_size=16, pages=99)}, "another cache")]:
        given: dict[str, Any] = {"ids": ids, "positions": layout.positions, "layout": layout, "wanted": wanted}
        with pytest.raises(GraphError, match=message):
            program.step(**(given | changes))
    long = lay_out([Part(9, 0, [0])], page_size=16, pages=PAGES)
    with pytest.raises(ResourceError, match="larger max_rows"):
        program.step(np.zeros(9, np.int32), long.positions, long, wanted)
    with pytest.raises(ResourceError, match="numbers below 24"):
        program.copy_pages([0], [PAGES])
    assert np.array_equal(program.step(ids, layout.positions, layout, wanted), before)


def test_sampling_is_the_teams(checkpoint: Any) -> None:
    program: Any = load(checkpoint)
    logits = np.array([[0, 3, 1], [5, 0, 0]], np.float32)
    zeros = np.zeros(2, np.float32)
    ids, logprobs = program.sample(logits, zeros, np.zeros(2, np.int32), zeros + 1, zeros, np.full(2, 0.5))
    assert ids.tolist() == [1, 0]
    assert np.allclose(logprobs, logits.max(1) - np.log(np.exp(logits).sum(1)), atol=1e-6)


def test_what_a_program_takes_is_told_exactly(checkpoint: Any) -> None:
    program: Any = load(checkpoint, max_rows=64, max_wanted=4)
    spec, facts = checkpoint[1], program.facts
    assert facts.cache_bytes == program.plan.cache.bytes
    plain = 4 * sum(parameter.numel() for parameter in checkpoint[2].parameters())
    assert plain < facts.weight_bytes < 1.2 * plain  # the heads of panels, and outputs that fill the last panel
    widest = 64 * 2 * spec.ffn_size * 4
    assert widest < program.peak_activation_bytes < facts.activation_bytes
    assert program.peak_activation_bytes < 4 * widest  # places are used again, not one for every value


def test_pages_must_fit_the_kernels(checkpoint: Any) -> None:
    with pytest.raises(ResourceError, match="page_size that 16 divides"):
        load(checkpoint, page_size=8)
    with pytest.raises(GraphError, match="by the rules of its target"):
        load(checkpoint, rules=False, quantise=Quantisation())


def test_steps_smaller_than_the_largest_need_no_more_memory(checkpoint: Any) -> None:
    # Products cut 2112 rows of 96 inputs into two chunks and leave 2048 whole: more scratch for fewer rows.
    program = load(checkpoint, quantise=Quantisation(), max_rows=2112, max_wanted=128, pages=136)
    prompts = [random_ids(checkpoint[1], 16, number) for number in range(128)]
    layout = lay_out([Part(16, 0, [number]) for number in range(128)], page_size=16, pages=136)
    wanted = np.arange(15, 2048, 16, dtype=np.int32)
    together = program.step(np.array(prompts, np.int32).reshape(-1), layout.positions, layout, wanted)
    few = lay_out([Part(16, 0, [number]) for number in range(4)], page_size=16, pages=136)
    apart_from_others = program.step(np.array(prompts[:4], np.int32).reshape(-1), few.positions, few, wanted[:4])
    np.testing.assert_array_equal(together[:4], apart_from_others)
    last = lay_out([Part(16, 0, [number]) for number in range(124, 128)], page_size=16, pages=136)
    ended = program.step(np.array(prompts[-4:], np.int32).reshape(-1), last.positions, last, wanted[:4])
    np.testing.assert_array_equal(together[-4:], ended)
