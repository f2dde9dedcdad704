"""Lines in, texts out: what ``autoglm generate`` and ``load(bundle).generate`` do with a bundle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from pydantic import ValidationError

from openautoglm.core.errors import AutoGLMError, GenerationError
from openautoglm.data.read.strict_json import StrictJsonError, parse
from openautoglm.data.records import DEPTH, Question, Reader
from openautoglm.engine.open import ProgramSettings
from openautoglm.engine.sampling import Sampling
from openautoglm.models.bundle import Bundle
from openautoglm.pipeline.engines import author_of
from openautoglm.pipeline.generation import Answer, Author

MAX_LINE_BYTES = 1 << 20


def recommended(bundle: Bundle, given: Mapping[str, Any]) -> Sampling:
    """The decoding that the card recommends, with `given` options in place.

    Raises:
        GenerationError: an option is out of its range, or they do not fit together.
    """
    card = bundle.card.recipe.get("decoding", {})
    if {"num_beams", "temperature"} & given.keys():  # another way to decode: how to choose among its texts goes too
        card = {name: card[name] for name in ("max_new_tokens",) if name in card}
    try:
        return Sampling.model_validate({**card, **given})
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}".removeprefix(": ")
                           for item in error.errors())
        raise GenerationError(faults.replace("Value error, ", ""), remedy="change these options") from error


def read_line(line: bytes, reader: Reader) -> Question:
    """Make a question of a line: a JSON object where it begins with a brace, else plain text.

    Raises:
        GenerationError: the line is too long, not UTF-8, not JSON, or has nothing to answer.
    """
    if len(line) > MAX_LINE_BYTES:
        raise GenerationError(f"the line has {len(line):,} bytes, at most {MAX_LINE_BYTES:,} are taken")
    try:
        text = line.decode("utf-8").removeprefix("\ufeff").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise GenerationError(f"not UTF-8 at byte {error.start}") from error
    if not text.lstrip().startswith("{"):
        return reader.question(text)
    try:
        return reader.question(parse(text, DEPTH))
    except StrictJsonError as error:
        raise GenerationError(f"{error.reason}: {error.detail}") from error


def answer_lines(bundle: Bundle, lines: Iterable[bytes], sampling: Sampling, *, batch: int = 64,
                 program: ProgramSettings | None = None) -> Iterator[dict[str, Any]]:
    """Answer lines in order, `batch` at a time; a faulty line gives a record with ``line`` and ``error``.

    Blank lines are passed over (their numbers count). `program` says how the model is loaded.
    """
    author = author_of(bundle, program)
    reader = Reader(bundle.card.recipe.get("record"))
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    while chunk := list(islice(numbered, batch)):
        questions: dict[int, Question] = {}
        errors: dict[int, str] = {}
        for number, line in chunk:
            try:
                questions[number] = read_line(line, reader)
            except AutoGLMError as error:
                errors[number] = error.message
        answers = _answered(author, questions, sampling, errors)
        for number, _ in chunk:
            yield ({"line": number, "error": errors[number]} if number in errors
                   else as_record(questions[number], answers[number], number))


def _answered(author: Author, questions: Mapping[int, Question], sampling: Sampling,
              errors: dict[int, str]) -> dict[int, Answer]:
    """Answer all together; where that fails, one by one, so that one bad record does not stop the others."""
    try:
        return dict(zip(questions, author.answer(list(questions.values()), sampling), strict=True))
    except AutoGLMError as together:
        if len(questions) == 1:
            errors[next(iter(questions))] = together.message
            return {}
    answers: dict[int, Answer] = {}
    for number, question in questions.items():
        answers |= _answered(author, {number: question}, sampling, errors)
    return answers


def as_record(question: Question, answer: Answer, line: int | None = None) -> dict[str, Any]:
    """An answer as plain containers; candidates only where there are several."""
    record: dict[str, Any] = {} if line is None else {"line": line}
    record |= {"source": question.source, "text": answer.text, "finished": answer.finished}
    if len(answer.candidates) > 1:
        record["candidates"] = [{"text": text, "logprob": logprob}
                                for text, logprob in zip(answer.candidates, answer.logprobs, strict=True)]
    return record
