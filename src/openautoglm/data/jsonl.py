"""Our own files of cleaned examples: one JSON object a line, with the origin of each example."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from openautoglm.core.errors import DataError
from openautoglm.core.files import atomic_write
from openautoglm.core.values import Example, Origin, Turn

_quoted = json.encoder.encode_basestring  # a JSON string, other than ASCII as it is; written in C


def encode_example(example: Example) -> str:
    """Return an example as one line of JSON, without the newline; empty fields and turns are left out."""
    line = (f'{{"source":{_quoted(example.source)},"target":{_quoted(example.target)},'
            f'"file":{_quoted(example.origin.file)},"line":{example.origin.line}')
    if example.fields:
        line += f',"fields":[{_pairs(example.fields)}]'
    if example.turns:
        line += f',"turns":[{_pairs(example.turns)}]'
    return line + "}"


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return ",".join([f"[{_quoted(name)},{_quoted(text)}]" for name, text in pairs])


def decode_example(line: str | bytes) -> Example:
    """Return the example of one line.

    Raises:
        ValueError, KeyError, TypeError: the line is not one of ours.
    """
    row = json.loads(line)
    fields, turns = row.get("fields"), row.get("turns")
    return Example(row["source"], row["target"], Origin(row["file"], row["line"]),
                   tuple([(name, value) for name, value in fields]) if fields else (),
                   tuple([Turn(role, text) for role, text in turns]) if turns else ())


def write_examples(path: str | Path, examples: Iterable[Example]) -> int:
    """Write examples to `path`, atomically and streaming, and return how many."""
    count = 0
    with atomic_write(path) as file:
        for example in examples:
            file.write(encode_example(example) + "\n")
            count += 1
    return count


def read_examples(path: str | Path) -> Iterator[Example]:
    """Stream the examples of a file that `write_examples` wrote.

    Raises:
        DataError: the file is missing, or a line is damaged (named).
    """
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield decode_example(line)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise DataError(f"not an example: {error}", where=f"{path}:{number}",
                                    remedy="remove the file and run the stage again") from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path),
                        remedy="run the cleaning stage first") from error
