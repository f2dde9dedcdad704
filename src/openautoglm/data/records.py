"""What users ask about, in the shapes that a bundle was trained on: text, records and conversations become questions.

Records go through the same code as the rows of training files (`data/read/shape.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from openautoglm.core.errors import GenerationError
from openautoglm.core.values import Example, Reject, Turn
from openautoglm.data.read.messages import conversation
from openautoglm.data.read.row import Row, Table
from openautoglm.data.read.shape import shaped
from openautoglm.data.read.values import UnfitError
from openautoglm.data.settings import DataSettings

DEPTH = 64
"""Levels of nesting of a record."""
_ANSWER = {"role": "assistant", "content": "-"}


@dataclass(frozen=True, slots=True)
class Question:
    """One record to be answered."""

    source: str
    turns: tuple[Turn, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()


class Reader:
    """Makes questions of what a user writes: text, or records in the shapes that the bundle knows.

    Args:
        record: how rows became examples, as the card remembers it (`recipe["record"]`); None where it does not.
    """

    def __init__(self, record: Mapping[str, Any] | None) -> None:
        self._data = DataSettings.model_validate({**record, "train": ("-",)}) if record else None

    @property
    def running_text(self) -> bool:
        """Whether the bundle was trained on running text, so that a text is to be continued rather than answered."""
        return self._data is not None and self._data.text is not None

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
            return self.conversation(value["messages"])
        for name in ("source", "prompt"):
            if isinstance(value.get(name), str):
                return self._text(value[name])
        if self._data is not None and self._data.target is not None:
            return self._shaped(dict(value))
        raise GenerationError("the object has none of: source, prompt, messages")

    def conversation(self, messages: Any) -> Question:
        """Make a question of messages in OpenAI form; the last of them is the user's, or the result of a tool.

        Raises:
            GenerationError: they are no messages, or the last one leaves nothing to answer.
        """
        ended = [*messages, _ANSWER] if isinstance(messages, list) else messages
        try:
            source, _, turns = conversation({"messages": ended}, "messages", DEPTH)
        except UnfitError as error:
            raise GenerationError(f"{error.reason}: {error.detail}") from error
        if not source and not (turns and turns[-1].role == "observation"):
            raise GenerationError("the last message must be the user's")
        return Question(source, turns)

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
