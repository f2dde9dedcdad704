"""An author asks the engine with the template's prompts, and chooses among the candidates it gets."""

from __future__ import annotations

from collections.abc import Sequence

from openautoglm.core.values import Example, Origin, Turn
from openautoglm.engine.generate import Candidate
from openautoglm.engine.sampling import Sampling
from openautoglm.pipeline.generation import Author
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer

FIELDS = (("name", "The Punter"), ("price", "cheap"))


class Fake:
    """Gives the same texts for every prompt, the first one finished, and remembers the prompts."""

    def __init__(self, tokenizer: Tokenizer, *texts: str) -> None:
        self._ids = [tuple(tokenizer.encode(text)) for text in texts]
        self.prompts: list[list[int]] = []

    def generate(self, prompts: Sequence[list[int]], settings: Sampling) -> list[list[Candidate]]:
        self.prompts += prompts
        return [[Candidate(ids, -1.0 - n, n == 0) for n, ids in enumerate(self._ids)] for _ in prompts]


def test_answers_keep_their_order_and_the_choice_reads_the_record():
    tokenizer, template = Tokenizer.train(["The Punter is a cheap pub."] * 9, 320), Template()
    fake = Fake(tokenizer, "A pub.", "The Punter is cheap.")
    records = [Example("a longer source", "", Origin("", 1), FIELDS),
               Example("y", "", Origin("", 2), (), (Turn("user", "a"), Turn("assistant", "b")))]
    answers = Author(fake, template, tokenizer).answer(
        records, Sampling(num_beams=2, n=2, choose="coverage"))
    assert [answer.text for answer in answers] == ["The Punter is cheap.", "A pub."]
    assert [answer.finished for answer in answers] == [False, True]
    assert answers[0].candidates == ("A pub.", "The Punter is cheap.")
    assert answers[0].logprobs == (-1.0, -2.0)
    prompts = [template.prompt(record.source, record.turns, tokenizer) for record in records]
    assert sorted(fake.prompts) == sorted(prompts)
