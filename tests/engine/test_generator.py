"""Generation on transformers' classes: as transformers' own, whatever the batch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain
from typing import Any

import pytest
import torch

from openautoglm.core.errors import GenerationError
from openautoglm.engine.generate import Candidate, Generator
from openautoglm.engine.sampling import Sampling
from openautoglm.engine.transformers_generator import TransformersGenerator

STOP = 3
GREEDY = Sampling(max_new_tokens=16)
BEAMS = Sampling(max_new_tokens=12, num_beams=4, n=4)
DRAWN = Sampling(max_new_tokens=12, temperature=1.0, n=3, seed=5)


def generator(model: Any, **options: Any) -> TransformersGenerator:
    return TransformersGenerator(model, stop_ids=(STOP,), **{"max_rows": 20, **options})


def ids(results: Sequence[Sequence[Candidate]]) -> list[list[tuple[int, ...]]]:
    return [[candidate.ids for candidate in candidates] for candidates in results]


def theirs(model: Any, prompt: list[int], **options: Any) -> list[tuple[int, ...]]:
    """What transformers' own `generate` writes; 99 cannot be generated, so it marks the padding."""
    rows = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        eos_token_id=STOP,
        pad_token_id=99,
        **options,
    )[:, len(prompt) :].tolist()
    return [tuple(i for i in row if i not in (STOP, 99)) for row in rows]


def teacher_forced(model: Any, prompt: list[int], candidate: Candidate) -> float:
    """The log-probability of a candidate from one forward pass over all of it."""
    answer = [*candidate.ids, *([STOP] if candidate.finished else [])]
    with torch.inference_mode():
        logps = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return sum(float(logps[len(prompt) - 1 + place, i]) for place, i in enumerate(answer))


def test_greedy_is_transformers_greedy(model: Any, prompts: list[list[int]]) -> None:
    results = generator(model).generate(prompts, GREEDY)
    assert ids(results) == [theirs(model, prompt, max_new_tokens=16) for prompt in prompts]
    assert 0 < sum(candidates[0].finished for candidates in results) < len(prompts), (
        "both kinds of end are tried"
    )


@pytest.mark.parametrize(("penalty", "early"), [(1.0, False), (0.6, True), (0.0, False), (2.0, False)])
def test_beams_are_transformers_beams(
    model: Any, prompts: list[list[int]], penalty: float, early: bool
) -> None:
    settings = BEAMS.model_copy(update={"length_penalty": penalty, "early_stop": early})
    options = {"num_beams": 4, "num_return_sequences": 4, "length_penalty": penalty, "early_stopping": early}
    expected = [theirs(model, prompt, max_new_tokens=12, **options) for prompt in prompts]
    assert ids(generator(model).generate(prompts, settings)) == expected


@pytest.mark.parametrize(
    "settings", [GREEDY, BEAMS, DRAWN, GREEDY.model_copy(update={"repetition_penalty": 1.5})]
)
def test_a_batch_gives_what_single_prompts_give(model: Any, prompts: list[list[int]], settings: Sampling) -> None:
    alone = [generator(model).generate([prompt], settings)[0] for prompt in prompts]
    for max_rows in (1, 9, 1000):
        together = generator(model, max_rows=max_rows).generate(prompts, settings)
        assert ids(together) == ids(alone), max_rows
        for one, other in zip(chain(*together), chain(*alone), strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
            assert one.finished == other.finished


@pytest.mark.parametrize("settings", [GREEDY, BEAMS, DRAWN])
def test_logprobs_are_those_of_one_pass(model: Any, prompts: list[list[int]], settings: Sampling) -> None:
    for prompt, candidates in zip(prompts, generator(model).generate(prompts, settings), strict=True):
        assert len(candidates) == settings.n
        for candidate in candidates:
            assert candidate.logprob == pytest.approx(teacher_forced(model, prompt, candidate), abs=1e-3)
            assert len(candidate.ids) + candidate.finished <= settings.max_new_tokens
            assert STOP not in candidate.ids


def test_wider_beams_find_what_is_likelier(model: Any, prompts: list[list[int]]) -> None:
    narrow, wide = (
        generator(model).generate(prompts, Sampling(max_new_tokens=8, num_beams=beams, length_penalty=0.0))
        for beams in (2, 16)
    )
    gains = [other[0].logprob - one[0].logprob for one, other in zip(narrow, wide, strict=True)]
    assert sum(gains) > 0


def test_a_seed_repeats_and_another_does_not(model: Any, prompts: list[list[int]]) -> None:
    engine = generator(model)
    first = ids(engine.generate(prompts, DRAWN))
    assert first == ids(engine.generate(prompts, DRAWN))
    assert first == ids(engine.generate(prompts[::-1], DRAWN))[::-1]
    assert first != ids(engine.generate(prompts, DRAWN.model_copy(update={"seed": 6})))
    assert any(len(set(candidates)) > 1 for candidates in first)


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}, {"temperature": 1e-5}])
def test_the_narrowest_sampling_is_greedy(
    model: Any, prompts: list[list[int]], narrow: dict[str, Any]
) -> None:
    settings = Sampling(max_new_tokens=16, **{"temperature": 2.0, **narrow})
    engine = generator(model)
    assert ids(engine.generate(prompts, settings)) == ids(engine.generate(prompts, GREEDY))


def test_ids_past_the_tokenizer_are_never_written(model: Any, prompts: list[list[int]]) -> None:
    engine = generator(model, vocab_size=20)
    for settings in (GREEDY, BEAMS, DRAWN):
        written = {i for candidates in engine.generate(prompts, settings) for c in candidates for i in c.ids}
        assert written
        assert max(written) < 20


def test_a_penalty_keeps_from_repeating(model: Any, prompts: list[list[int]]) -> None:
    def repeats(settings: Sampling) -> int:
        results = generator(model).generate(prompts, settings)
        return sum(len(c.ids) - len(set(c.ids)) for candidates in results for c in candidates)

    for settings in (GREEDY, BEAMS):
        assert repeats(settings.model_copy(update={"repetition_penalty": 10.0})) < repeats(settings)


def test_the_last_position_ends_an_answer(model: Any) -> None:
    engine = TransformersGenerator(model, stop_ids=())
    near, far = engine.generate([[7] * 60, [7] * 5], Sampling(max_new_tokens=10))
    assert (len(near[0].ids), near[0].finished) == (4, False)
    assert (len(far[0].ids), far[0].finished) == (10, False)


def test_a_small_cache_makes_small_batches(model: Any, prompts: list[list[int]]) -> None:
    engine = generator(model, cache_bytes=1)
    assert ids(engine.generate(prompts, GREEDY)) == ids(generator(model).generate(prompts, GREEDY))


def test_a_training_model_goes_on_training(model: Any, prompts: list[list[int]]) -> None:
    model.train()
    try:
        generator(model).generate(prompts[:1], GREEDY)
        assert model.training
    finally:
        model.eval()


def test_bf16_weights_generate(model: Any, prompts: list[list[int]]) -> None:
    half = copy.deepcopy(model).to(torch.bfloat16)
    for settings in (GREEDY, BEAMS):
        results = generator(half).generate(prompts, settings)
        assert all(candidates[0].logprob < 0 for candidates in results)


@pytest.mark.parametrize(
    ("prompt", "reason"), [([], "empty"), ([40], "outside"), ([-1], "outside"), ([7] * 64, "64 positions")]
)
def test_a_prompt_that_cannot_be_served_is_named(model: Any, prompt: list[int], reason: str) -> None:
    with pytest.raises(GenerationError, match=f"prompt 1.*{reason}") as caught:
        generator(model).generate([[7], prompt], GREEDY)
    assert caught.value.remedy


def test_nothing_gives_nothing_and_the_interface_is_kept(model: Any) -> None:
    engine: Generator = generator(model)
    assert engine.generate([], GREEDY) == []
