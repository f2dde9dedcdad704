"""A bundle that writes: sources in, texts out. Template, generator and choice put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch

from openautoglm.core.values import Turn
from openautoglm.engine.consensus import choose
from openautoglm.engine.generate import Generator
from openautoglm.engine.sampling import Sampling
from openautoglm.engine.transformers_generator import TransformersGenerator
from openautoglm.models.bundle import Bundle


class Record(Protocol):
    """What is asked: a source, earlier turns, and the fields of the record behind it."""

    @property
    def source(self) -> str: ...
    @property
    def turns(self) -> tuple[Turn, ...]: ...
    @property
    def fields(self) -> tuple[tuple[str, str], ...]: ...


class Reply(NamedTuple):
    """The texts of one record.

    Attributes:
        text: the chosen one.
        texts: all candidates, in the generator's order.
        logprobs: of the candidates.
        finished: whether the chosen text ended by itself.
        prompt_tokens, output_tokens: ids read, and ids written in all candidates.
    """

    text: str
    texts: tuple[str, ...]
    logprobs: tuple[float, ...]
    finished: bool
    prompt_tokens: int
    output_tokens: int


class TextGenerator:
    """Answers records with a bundle.

    Args:
        bundle: whose template, tokenizer and weights are used.
        device: where the weights go.
        dtype: of the weights; as stored when None.
        generator: another engine in place of transformers' classes.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        generator: Generator | None = None,
    ) -> None:
        self._template, self._tokenizer = bundle.template, bundle.tokenizer
        self._generator = generator or TransformersGenerator(
            bundle.model(dtype).to(device),
            stop_ids=self._template.stop_ids(self._tokenizer),
            vocab_size=self._tokenizer.vocab_size,
        )

    def generate(self, records: Sequence[Record], sampling: Sampling) -> list[Reply]:
        """Answer each record, in order.

        Raises:
            GenerationError: a prompt leaves no room for an answer.
            TokenizerError: a text is not Unicode, or a turn has an unknown role.
        """
        prompts = [self._template.prompt(record.source, record.turns, self._tokenizer) for record in records]
        replies = []
        for record, prompt, candidates in zip(
            records, prompts, self._generator.generate(prompts, sampling), strict=True
        ):
            texts = tuple(self._template.reply(candidate.ids, self._tokenizer) for candidate in candidates)
            logprobs = tuple(candidate.logprob for candidate in candidates)
            chosen = choose(texts, record.fields, sampling, logprobs)
            replies.append(
                Reply(
                    text=texts[chosen],
                    texts=texts,
                    logprobs=logprobs,
                    finished=candidates[chosen].finished,
                    prompt_tokens=len(prompt),
                    output_tokens=sum(len(candidate.ids) for candidate in candidates),
                )
            )
        return replies
