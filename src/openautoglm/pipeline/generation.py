"""From records to texts: prompts by the template, candidates by the engine, one text chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from openautoglm.core.progress import progress
from openautoglm.core.values import Turn
from openautoglm.engine.consensus import choose
from openautoglm.engine.generate import Generator
from openautoglm.engine.sampling import Sampling
from openautoglm.evaluate.base import Likelihood
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer

_ROWS = 256
_LIKELIHOOD_TOKENS = 4096


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
    """A model with its tokenizer and template, answering records.

    Args:
        model: transformers' class, on its device.
        generator: another engine in place of transformers' classes.
    """

    def __init__(self, model: Any, template: Template, tokenizer: Tokenizer,
                 generator: Generator | None = None) -> None:
        from openautoglm.engine.transformers_generator import TransformersGenerator

        self.model, self.template, self.tokenizer = model, template, tokenizer
        self._generator = generator or TransformersGenerator(
            model, stop_ids=template.stop_ids(tokenizer), vocab_size=tokenizer.vocab_size)

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

    def likelihoods(self, records: Sequence[Asked], references: Sequence[str]) -> list[Likelihood]:
        """What the model says of one reference of each record, its end token included."""
        import torch

        from openautoglm.core.values import Example, Origin

        examples = [Example(record.source, text, Origin("", 0), record.fields, record.turns)
                    for record, text in zip(records, references, strict=True)]
        encoded = self.template.encode_many(examples, self.tokenizer)
        order = sorted(range(len(encoded)), key=lambda index: len(encoded[index].ids))
        found: dict[int, Likelihood] = {}
        self.model.eval()
        with torch.inference_mode():
            while order:
                width = len(encoded[order[-1]].ids)
                chunk = [order.pop() for _ in range(min(len(order), max(1, _LIKELIHOOD_TOKENS // width)))]
                ids_BL = torch.zeros(len(chunk), width, dtype=torch.long, device=self.model.device)
                for row, index in enumerate(chunk):
                    ids_BL[row, : len(encoded[index].ids)] = torch.tensor(encoded[index].ids)
                logp_BL = torch.log_softmax(self.model(input_ids=ids_BL[:, :-1]).logits.float(), -1).gather(
                    2, ids_BL[:, 1:, None])[:, :, 0]
                for row, index in enumerate(chunk):
                    item = encoded[index]
                    span = logp_BL[row, item.prompt_tokens - 1 : len(item.ids) - 1]
                    found[index] = Likelihood(float(span.double().sum()), len(span), len(references[index].encode()))
        return [found[index] for index in range(len(encoded))]

