"""From what a client wrote to ids, by the bundle's own template; prompts that are too long are cut where asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from openautoglm.core.errors import GenerationError, TokenizerError
from openautoglm.core.values import Turn
from openautoglm.data.records import Question, Reader
from openautoglm.serve.faults import BadRequest, TooLong
from openautoglm.serve.service.language import Language
from openautoglm.serve.wire.asks import ChatAsk, CompletionAsk, TokenizeAsk, Truncate
from openautoglm.serve.wire.messages import Message

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
_TRIES = 8


class Prompt(NamedTuple):
    """One prompt as ids.

    Attributes:
        ids: of the prompt.
        question: what it was made of; None for ids and running text.
        dropped_messages, dropped_tokens: what was left out because it was too long.
    """

    ids: tuple[int, ...]
    question: Question | None = None
    dropped_messages: int = 0
    dropped_tokens: int = 0


class Prompts:
    """Makes the prompts of one model."""

    def __init__(self, language: Language) -> None:
        self._template, self._tokenizer = language.template, language.tokenizer
        self._reader = Reader(language.recipe.get("record"))
        bare = language.template.model_copy(update={"system": None})
        self._head = bare.prompt("", (), language.tokenizer)

    def of_completion(self, ask: CompletionAsk, room: int) -> list[Prompt]:
        """The prompts of an ask; `room` is how many ids one may have where it may be cut.

        Raises:
            BadRequest: a text or a record cannot become a prompt.
        """
        raw = self._reader.running_text if ask.raw is None else ask.raw
        return [self._of_item(item, raw, ask.truncate or "off", room) for item in ask.prompt]

    def of_chat(self, ask: ChatAsk, room: int, before: Sequence[Message] = ()) -> Prompt:
        """The prompt of a conversation; `before` are messages that the server kept.

        Raises:
            BadRequest: it has nothing to answer.
        """
        return self._answering(self._conversation((*before, *ask.messages)), ask.truncate or "off", room, "messages")

    def of_tokenize(self, ask: TokenizeAsk) -> list[int]:
        """The ids of a text, with the template's marks or alone.

        Raises:
            BadRequest: as `of_chat`.
        """
        if ask.messages is not None:
            return list(self._answering(self._conversation(ask.messages), "off", 0, "messages").ids)
        if ask.add_special_tokens is False and isinstance(ask.prompt, str):
            return self._encode(ask.prompt, "prompt")
        return list(self._of_item(ask.prompt, self._reader.running_text, "off", 0).ids)

    def of_text(self, item: Any) -> tuple[int, ...]:
        """The ids of a text that is only read, e.g. to be embedded.

        Raises:
            BadRequest: it is no Unicode text.
        """
        return item if isinstance(item, tuple) else (*self._head, *self._encode(item, "input"))

    def _of_item(self, item: Any, raw: bool, truncate: Truncate, room: int) -> Prompt:
        if isinstance(item, tuple):
            return _windowed(item, 0, truncate, room)
        if isinstance(item, str) and raw:
            ids = (*self._head, *self._encode(item, "prompt"))
            return _windowed(ids, len(self._head), truncate, room)
        return self._answering(self._question(lambda: self._reader.question(item), "prompt"), truncate, room, "prompt")

    def _conversation(self, messages: Sequence[Message]) -> Question:
        plain = [message.model_dump(mode="python", include={"role", "content", "tool_calls"}) for message in messages]
        for message in plain:
            message["tool_calls"] = list(message["tool_calls"] or ())
        return self._question(lambda: self._reader.conversation(plain), "messages")

    def _question(self, make: Callable[[], Question], where: str) -> Question:
        try:
            return make()
        except GenerationError as error:
            raise BadRequest(error.message, where=where, remedy=error.remedy or "correct it") from error

    def _encode(self, text: str, where: str) -> list[int]:
        try:
            return self._tokenizer.encode(text)
        except TokenizerError as error:
            raise BadRequest(error.message, where=where, remedy=error.remedy) from error

    def _ids(self, question: Question, where: str) -> tuple[int, ...]:
        try:
            return tuple(self._template.prompt(question.source, question.turns, self._tokenizer))
        except TokenizerError as error:
            raise BadRequest(error.message, where=where, remedy=error.remedy) from error

    def _answering(self, question: Question, truncate: Truncate, room: int, where: str) -> Prompt:
        ids = self._ids(question, where)
        if truncate == "off" or len(ids) <= room:
            return Prompt(ids, question)
        shorter, dropped = self._without_turns(question, room, where)
        kept = self._ids(shorter, where)
        if len(kept) > room and truncate == "window":
            kept = self._without_beginning(shorter, room, where)
        if len(kept) > room:
            raise TooLong(f"has {len(kept)} tokens without its oldest turns, there is room for {room}", where=where,
                          remedy="shorten its newest turn, ask for fewer tokens, or set truncate to window")
        return Prompt(kept, question, dropped, len(ids) - len(kept))

    def _without_turns(self, question: Question, room: int, where: str) -> tuple[Question, int]:
        """Leave out the oldest turns but those of the system, as few as need be; say how many."""
        system = tuple(turn for turn in question.turns if turn.role == "system")
        others = [turn for turn in question.turns if turn.role != "system"]
        starts = [number for number, turn in enumerate(others) if number and turn.role == "user"]
        starts.append(_last_start(question, others))
        low, high = 0, len(starts) - 1
        while low < high:
            middle = (low + high) // 2
            if len(self._ids(_kept(question, system, others, starts[middle]), where)) <= room:
                high = middle
            else:
                low = middle + 1
        return _kept(question, system, others, starts[low]), starts[low]

    def _without_beginning(self, question: Question, room: int, where: str) -> tuple[int, ...]:
        """Leave out the beginning of the newest text."""
        text = self._encode(question.source, where)
        left = len(text)
        kept = self._ids(question, where)
        for _ in range(_TRIES):
            left -= len(kept) - room
            if left < 1:
                break
            source = self._tokenizer.decode(text[-left:]).lstrip(_INCOMPLETE)
            kept = self._ids(replace(question, source=source), where)
            if len(kept) <= room:
                break
        return kept


def _last_start(question: Question, others: Sequence[Turn]) -> int:
    """Where the turns begin that must stay: none where a source is there, else a tool's results and their call."""
    if question.source:
        return len(others)
    start = len(others) - 1
    while start > 0 and others[start].role == "observation":
        start -= 1
    return start


def _kept(question: Question, system: Sequence[Turn], others: Sequence[Turn], start: int) -> Question:
    return replace(question, turns=(*system, *others[start:]))


def _windowed(ids: tuple[int, ...], head: int, truncate: Truncate, room: int) -> Prompt:
    over = len(ids) - room
    if truncate != "window" or over <= 0 or head >= room:
        return Prompt(ids)
    return Prompt((*ids[:head], *ids[head + over:]), None, 0, over)
