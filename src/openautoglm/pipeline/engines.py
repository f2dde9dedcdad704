"""Bundles on the engine: authors that answer records and say how likely given texts are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from openautoglm.core.errors import GenerationError
from openautoglm.core.values import Example, Origin
from openautoglm.engine.engine import Engine
from openautoglm.engine.open import ProgramSettings, open_engine
from openautoglm.engine.settings import EngineSettings
from openautoglm.evaluate.base import Likelihood
from openautoglm.models.bundle import Bundle
from openautoglm.pipeline.generation import Asked, Author
from openautoglm.pipeline.units import parse_bytes
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer

_TOGETHER = 256
"""Sequences that decode together at most: evaluations have thousands of prompts, and beams multiply them."""


def program_settings(given: Mapping[str, Any]) -> ProgramSettings:
    """How a model is loaded, from options of a command; None stands for one that was left out.

    Args:
        given: fields of `ProgramSettings`; ``quantise`` is a format, ``group`` its group, ``memory_limit`` may be text.

    Raises:
        GenerationError: an option is out of its range, or they do not fit together.
    """
    options = {name: value for name, value in given.items() if value is not None}
    group = options.pop("group", None)
    if group is not None and "quantise" not in options:
        raise GenerationError("a group is given, but nothing is quantised", where="group",
                              remedy="give --quantise int8 or int4 with it")
    try:
        if "memory_limit" in options:
            options["memory_limit"] = parse_bytes(options["memory_limit"])
        if "quantise" in options:
            options["quantise"] = {"format": options["quantise"], **({} if group is None else {"group": group})}
        return ProgramSettings.model_validate(options)
    except ValidationError as error:
        raise _faulty(error) from error
    except ValueError as error:
        raise GenerationError(str(error), where="memory_limit", remedy="write a size such as 2GiB") from error


def engine_settings(given: Mapping[str, Any]) -> EngineSettings:
    """How an engine batches, from options of a command; None stands for one that was left out.

    Raises:
        GenerationError: an option is out of its range, or they do not fit together.
    """
    try:
        return EngineSettings.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise _faulty(error) from error


def _faulty(error: ValidationError) -> GenerationError:
    faults = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}".removeprefix(": ")
                       for item in error.errors())
    return GenerationError(faults.replace("Value error, ", ""), remedy="change these options")


class EngineAuthor(Author):
    """An author on our own engine."""

    def __init__(self, engine: Engine, template: Template, tokenizer: Tokenizer) -> None:
        super().__init__(engine, template, tokenizer)
        self.engine = engine

    def likelihoods(self, records: Sequence[Asked], references: Sequence[str]) -> list[Likelihood]:
        """What the model says of one reference of each record, its end token included.

        Raises:
            GenerationError: a record and its reference are longer than the model.
        """
        examples = [Example(record.source, text, Origin("", 0), record.fields, record.turns)
                    for record, text in zip(records, references, strict=True)]
        encoded = self.template.encode_many(examples, self.tokenizer)
        found = self.engine.token_logprobs([(item.ids, item.prompt_tokens) for item in encoded])
        return [Likelihood(float(logprobs.sum()), len(logprobs), len(text.encode()))
                for logprobs, text in zip(found, references, strict=True)]


def author_of(bundle: Bundle, program: ProgramSettings | None = None) -> EngineAuthor:
    """The bundle's model on the engine, ready to answer.

    Raises:
        BundleError, GraphError, ResourceError, MissingExtraError: it cannot be loaded so.
    """
    settings = program or ProgramSettings()
    if "max_wanted" not in settings.model_fields_set:
        settings = settings.model_copy(update={"max_wanted": _TOGETHER})
    engine = open_engine(bundle.path, settings, stop_ids=bundle.template.stop_ids(bundle.tokenizer),
                         vocab_size=bundle.tokenizer.vocab_size)
    return EngineAuthor(engine, bundle.template, bundle.tokenizer)
