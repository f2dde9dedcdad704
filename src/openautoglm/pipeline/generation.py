"""From records to texts: prompts by the template, candidates by the engine, one text chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from openautoglm.core.progress import progress
from openautoglm.core.values import Turn
from openautoglm.engine.consensus import choose
from openautoglm.engine.generate import Generator
from openautoglm.engine.sampling import Sampling
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer

_ROWS = 256


class Asked(Protocol):
    """What is answered: a case of an evaluation, or a line of ``autoglm generate``."""

    @property
    def source(self) -> str: ...
    @property
    def turns(self) -> tuple[Turn, ...]: ...
    @property
    def fields(self) -> tuple[tuple[str, str], ...]: ...


class Answer(NamedTuple):
    """The text chosen for a record, with all candidates and their log-probabilities.

    ``finished`` says whether the chosen text ended by itself rather than at the bound on tokens, ``ended`` the same of
    each candidate.
    """

    text: str
    finished: bool
    candidates: tuple[str, ...]
    logprobs: tuple[float, ...]
    ended: tuple[bool, ...] = ()


class Author:
    """An engine with a tokenizer and a template, answering records.

    Args:
        generator: prompts of ids in, candidates out.
    """

    def __init__(self, generator: Generator, template: Template, tokenizer: Tokenizer) -> None:
        self._generator, self.template, self.tokenizer = generator, template, tokenizer

    def answer(self, records: Sequence[Asked], sampling: Sampling, *, label: str | None = None) -> list[Answer]:
        """Answer each record, in order; `label` shows a progress bar.

        Raises:
            GenerationError: a prompt leaves no room for an answer.
            TokenizerError: a text is not Unicode, or a turn has an unknown role.
        """
        prompts = [self.template.prompt(record.source, record.turns, self.tokenizer) for record in records]
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        size = max(1, _ROWS // max(sampling.num_beams, sampling.n))
        answers: dict[int, Answer] = {}
        with progress(len(records), label or "", "records", quiet=label is None) as bar:
            for start in range(0, len(order), size):
                chunk = order[start : start + size]
                found = self._generator.generate([prompts[index] for index in chunk], sampling)
                for index, candidates in zip(chunk, found, strict=True):
                    texts = [self.template.reply(candidate.ids, self.tokenizer) for candidate in candidates]
                    logprobs = tuple(candidate.logprob for candidate in candidates)
                    chosen = choose(texts, records[index].fields, sampling, logprobs)
                    answers[index] = Answer(texts[chosen], candidates[chosen].finished, tuple(texts), logprobs,
                                            tuple(candidate.finished for candidate in candidates))
                bar.advance(len(chunk))
        return [answers[index] for index in range(len(records))]


def author_in_training(model: Any, template: Template, tokenizer: Tokenizer) -> Author:
    """An author for a model that is still being trained, in transformers' class, on its device."""
    from openautoglm.engine.transformers_generator import TransformersGenerator

    return Author(TransformersGenerator(model, stop_ids=template.stop_ids(tokenizer), vocab_size=tokenizer.vocab_size),
                  template, tokenizer)
