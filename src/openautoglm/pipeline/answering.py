"""Lines in, texts out: what ``autoglm generate`` and ``load(bundle).generate`` do with a bundle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic import ValidationError

from openautoglm.core.errors import AutoGLMError, GenerationError
from openautoglm.core.values import Example, Reject, Turn
from openautoglm.data.read.messages import conversation
from openautoglm.data.read.row import Row, Table
from openautoglm.data.read.shape import shaped
from openautoglm.data.read.strict_json import StrictJsonError, parse
from openautoglm.data.read.values import UnfitError
from openautoglm.data.settings import DataSettings
from openautoglm.engine.open import ProgramSettings
from openautoglm.engine.sampling import Sampling
from openautoglm.models.bundle import Bundle
from openautoglm.pipeline.engines import author_of
from openautoglm.pipeline.generation import Answer, Author

MAX_LINE_BYTES = 1 << 20
_DEPTH = 64
_ANSWER = {"role": "assistant", "content": "-"}


@dataclass(frozen=True, slots=True)
class Question:
    """One record to be answered."""

    source: str
    turns: tuple[Turn, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()


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


class Reader:
    """Makes questions of what a user writes: text, or records in the shapes that the bundle knows."""

    def __init__(self, bundle: Bundle) -> None:
        record = bundle.card.recipe.get("record")
        self._data = DataSettings.model_validate({**record, "train": ("-",)}) if record else None

    def question(self, value: Any) -> Question:
        """Make a question of a text, or of a mapping with ``messages``, ``source``, ``prompt`` or the bundle's columns.

        Raises:
            GenerationError: there is nothing to answer in it.
        """
        if isinstance(value, str):
            return self._text(value)
        if not isinstance(value, Mapping):
            raise GenerationError(f"a record is a text or an object, not a {type(value).__name__}")
        if "messages" in value:
            return self._conversation(value["messages"])
        for name in ("source", "prompt"):
            if isinstance(value.get(name), str):
                return self._text(value[name])
        if self._data is not None and self._data.target is not None:
            return self._shaped(dict(value))
        raise GenerationError("the object has none of: source, prompt, messages")

    def _text(self, text: str) -> Question:
        if self._data is not None and self._data.source is not None:
            return self._shaped({self._data.source: text}, lenient=text)
        return Question(text)

    def _shaped(self, values: dict[str, Any], lenient: str | None = None) -> Question:
        assert self._data is not None
        target = self._data.target or ""
        rows = iter([Row(1, {**values, target: "-"}, "")])
        found: Example | Reject = next(shaped(Table(None, rows), self._data, "record"))
        if isinstance(found, Reject):
            if lenient is not None:
                return Question(lenient)
            raise GenerationError(f"{found.reason}: {found.detail}", remedy="give the columns that the bundle was "
                                  "trained on, or source")
        return Question(found.source, found.turns, found.fields)

    def _conversation(self, messages: Any) -> Question:
        ended = [*messages, _ANSWER] if isinstance(messages, list) else messages
        try:
            source, _, turns = conversation({"messages": ended}, "messages", _DEPTH)
        except UnfitError as error:
            raise GenerationError(f"{error.reason}: {error.detail}") from error
        if not source:
            raise GenerationError("the last message must be the user's")
        return Question(source, turns)


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
        return reader.question(parse(text, _DEPTH))
    except StrictJsonError as error:
        raise GenerationError(f"{error.reason}: {error.detail}") from error


def answer_lines(bundle: Bundle, lines: Iterable[bytes], sampling: Sampling, *, batch: int = 64,
                 program: ProgramSettings | None = None) -> Iterator[dict[str, Any]]:
    """Answer lines in order, `batch` at a time; a faulty line gives a record with ``line`` and ``error``.

    Blank lines are passed over (their numbers count). `program` says how the model is loaded.
    """
    author = author_of(bundle, program)
    reader = Reader(bundle)
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
