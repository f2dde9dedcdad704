"""What requests ask: prompts made of random pieces with given lengths and shared beginnings, or rows of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openautoglm.bench.settings import Prompts
from openautoglm.bench.words import Vocabulary
from openautoglm.core.errors import DataError
from openautoglm.core.values import Turn
from openautoglm.data.read.messages import ROLES
from openautoglm.data.read.paths import file_format, resolve
from openautoglm.data.read.reader import columns, open_table
from openautoglm.data.read.row import Bad
from openautoglm.data.read.shape import nearest
from openautoglm.data.settings import DataSettings

COLUMNS = ("messages", "prompt", "source", "mr", "input", "question", "instruction", "text")
"""Columns that are taken for prompts where none is named, the first that there is."""
OUTPUT_COLUMN = "output_tokens"

Lengths = NDArray[np.int64]


class Prompt(NamedTuple):
    """One prompt.

    Attributes:
        text: what is asked; empty where only ids are known.
        ids: tokens of a made prompt; empty where the text or the turns are to be tokenised.
        turns: of a conversation, the last one to be answered; empty for plain text.
        tokens: its length; 0 where it is not known.
        output_tokens: most tokens of its answer; 0 where the settings say it.
    """

    text: str = ""
    ids: tuple[int, ...] = ()
    turns: tuple[Turn, ...] = ()
    tokens: int = 0
    output_tokens: int = 0


def drawn_lengths(length: int, ratio: float, count: int, dice: np.random.Generator) -> Lengths:
    """[count] whole numbers, drawn evenly from ``length * (1 - ratio)`` to ``length * (1 + ratio)``; at least 1."""
    low, high = max(1, round(length * (1 - ratio))), max(1, round(length * (1 + ratio)))
    return dice.integers(low, high + 1, count)


def made_prompts(settings: Prompts, vocabulary: Vocabulary, lengths: Sequence[int] | Lengths, seed: int
                 ) -> list[Prompt]:
    """One prompt for each length, of random pieces.

    The first ``round(shared_prefix * length)`` pieces are those of one of `num_prefixes` beginnings, in turn; the rest
    is each prompt's own. Beginnings depend on the seed too, so that a further repetition does not find them cached.
    """
    dice = np.random.default_rng((seed, 2))
    longest = int(max(lengths, default=0))
    prefixes = dice.integers(0, vocabulary.size, (settings.num_prefixes, longest))
    made = []
    for number, length in enumerate(int(length) for length in lengths):
        shared = round(settings.shared_prefix * length)
        own = dice.integers(0, vocabulary.size, length - shared)
        made.append(_joined(vocabulary, np.concatenate([prefixes[number % settings.num_prefixes, :shared], own])))
    return made


def _joined(vocabulary: Vocabulary, pieces: NDArray[np.int64]) -> Prompt:
    text = "".join(vocabulary.words[piece] for piece in pieces) if vocabulary.words else ""
    ids = tuple(vocabulary.ids[pieces].tolist()) if len(vocabulary.ids) else ()
    return Prompt(text, ids, tokens=len(pieces) if vocabulary.exact else 0)


def read_prompts(settings: Prompts) -> list[Prompt]:
    """All prompts of the data set, in the order of its files.

    A column ``messages`` holds conversations in OpenAI's form; they end with the turn that is to be answered, answers
    behind it are left out. A column ``output_tokens`` bounds the answers.

    Raises:
        DataError: a file cannot be read, has no such column, or a broken row; names file and line.
    """
    found: list[Prompt] = []
    for path in resolve(settings.dataset, Path()):
        found += _of_file(path, settings.column)
    if not found:
        raise DataError("holds no prompt", where=", ".join(settings.dataset), remedy="give a file with rows")
    return found


def _of_file(path: Path, wanted: str | None) -> list[Prompt]:
    reading = DataSettings(train=(str(path),), text=wanted or "text", allow_empty=True)
    if file_format(path, reading) == "parquet":
        reading = reading.model_copy(update={"fields": (OUTPUT_COLUMN,)})
    names = columns(path, reading)
    column = wanted or next((name for name in COLUMNS if name in names), None)
    if column is None or column not in names:
        raise DataError(f"there is no column for prompts; {nearest(column or 'prompt', tuple(names))}",
                        where=str(path), remedy="name it with --column")
    found = []
    with open_table(path, reading.model_copy(update={"text": column})) as table:
        for row in table.rows:
            where = f"{path}:{row.line}"
            if isinstance(row, Bad):
                raise DataError(f"{row.reason}: {row.detail}", where=where, remedy="repair or remove the line")
            found.append(_prompt(row.values, column, where))
    return found


def _prompt(values: Any, column: str, where: str) -> Prompt:
    value = values.get(column)
    most = values.get(OUTPUT_COLUMN)
    try:
        output = 0 if most is None or most == "" else int(most)
    except (TypeError, ValueError) as error:
        raise DataError(f"the column {OUTPUT_COLUMN!r} holds {most!r}, which is no number", where=where,
                        remedy="repair or remove the line") from error
    if isinstance(value, list):
        turns = _turns(value, where)
        return Prompt(turns[-1].text, turns=turns, output_tokens=max(output, 0))
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"the column {column!r} holds no text", where=where, remedy="repair or remove the line")
    return Prompt(value, output_tokens=max(output, 0))


def _turns(messages: list[Any], where: str) -> tuple[Turn, ...]:
    turns = []
    for message in messages:
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if role not in ROLES or not isinstance(content, str):
            raise DataError("a message needs a known role and a text as its content", where=where,
                            remedy="repair or remove the line")
        turns.append(Turn(ROLES[role], content))
    while turns and turns[-1].role == "assistant":
        turns.pop()
    if not turns:
        raise DataError("the conversation has no turn to be answered", where=where, remedy="remove the line")
    return tuple(turns)
