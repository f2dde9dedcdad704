"""A bundle that answers records."""

from __future__ import annotations

from collections.abc import Sequence

from openautoglm.core.values import Example, Origin, Turn
from openautoglm.engine.generate import Candidate
from openautoglm.engine.sampling import Sampling
from openautoglm.engine.text_engine import TextGenerator
from openautoglm.engine.transformers_generator import TransformersGenerator
from openautoglm.models.bundle import Bundle

FIELDS = (("name", "The Punter"), ("price", "cheap"))


class Fake:
    """Gives the same texts for every prompt, and remembers the prompts."""

    def __init__(self, bundle: Bundle, *texts: str) -> None:
        self._ids = [tuple(bundle.tokenizer.encode(text)) for text in texts]
        self.prompts: Sequence[list[int]] = []

    def generate(self, prompts: Sequence[list[int]], settings: Sampling) -> list[list[Candidate]]:
        self.prompts = prompts
        return [[Candidate(ids, -1.0 - n, n == 0) for n, ids in enumerate(self._ids)] for _ in prompts]


def record(source: str, fields: tuple[tuple[str, str], ...] = (), *turns: Turn) -> Example:
    return Example(source, "", Origin("", 1), fields, turns)


def test_texts_are_chosen_and_tokens_counted(bundle: Bundle) -> None:
    fake = Fake(bundle, "A pub.", "The Punter is cheap.")
    sampling = Sampling(num_beams=2, n=2, choose="coverage")
    asked = [record("x", FIELDS), record("y", (), Turn("user", "a"), Turn("assistant", "b"))]
    replies = TextGenerator(bundle, generator=fake).generate(asked, sampling)
    assert [reply.text for reply in replies] == ["The Punter is cheap.", "A pub."]
    assert [reply.finished for reply in replies] == [False, True]
    assert replies[0].texts == ("A pub.", "The Punter is cheap.")
    assert replies[0].logprobs == (-1.0, -2.0)
    expected = [bundle.template.prompt(one.source, one.turns, bundle.tokenizer) for one in asked]
    assert fake.prompts == expected
    assert [reply.prompt_tokens for reply in replies] == [len(prompt) for prompt in expected]
    counts = [len(bundle.tokenizer.encode(text)) for text in replies[0].texts]
    assert replies[0].output_tokens == sum(counts)


def test_a_bundle_answers_as_its_model_does(bundle: Bundle) -> None:
    sampling = Sampling(max_new_tokens=12)
    replies = TextGenerator(bundle).generate([record("The Punter"), record("")], sampling)
    engine = TransformersGenerator(
        bundle.model(), stop_ids=bundle.spec.eos_ids, vocab_size=bundle.tokenizer.vocab_size
    )
    for source, reply in zip(("The Punter", ""), replies, strict=True):
        prompt = bundle.template.prompt(source, (), bundle.tokenizer)
        (candidate,) = engine.generate([prompt], sampling)[0]
        assert reply.text == bundle.template.reply(candidate.ids, bundle.tokenizer)
        assert reply.output_tokens == len(candidate.ids)
