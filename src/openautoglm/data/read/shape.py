"""From a row to an example: columns, record templates, conversations, running text; and its fields."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any

from openautoglm.core.errors import DataError
from openautoglm.core.values import Example, Origin, Reject
from openautoglm.data.read.lines import RAW_CHARS
from openautoglm.data.read.messages import conversation
from openautoglm.data.read.row import Bad, Table
from openautoglm.data.read.values import UnfitError, as_text
from openautoglm.data.settings import DataSettings, template_columns

CACHED_SOURCES = 1024
"""Rows with several targets for one source are common and stand together."""

_Fields = tuple[tuple[str, str], ...]


def shaped(table: Table, settings: DataSettings, file: str) -> Iterator[Example | Reject]:
    """Make every row an example or a reject.

    Raises:
        DataError: a column that the settings name is not in the table, or twice.
    """
    if table.columns is not None and table.columns != ():
        check_columns(table.columns, settings, file)
    make = _maker(settings)
    for row in table.rows:
        if isinstance(row, Bad):
            yield reject(Origin(file, row.line), row.reason, row.detail, row.raw)
            continue
        origin = Origin(file, row.line)
        try:
            yield make(row.values, origin)
        except UnfitError as error:
            yield reject(origin, error.reason, error.detail, row.raw or json.dumps(
                dict(row.values), ensure_ascii=False, default=str))


def reject(origin: Origin, reason: str, detail: str, raw: str) -> Reject:
    """A reject whose texts are bounded and can be written as UTF-8."""
    detail, raw = detail[:RAW_CHARS], raw[:RAW_CHARS]
    return Reject(origin, reason, detail.encode("utf-8", "backslashreplace").decode(),
                  raw.encode("utf-8", "backslashreplace").decode())


def check_columns(columns: tuple[str, ...], settings: DataSettings, file: str) -> None:
    """See that every needed column is there, once.

    Raises:
        DataError: naming the nearest columns.
    """
    for name in settings.needed_columns():
        if columns.count(name) > 1:
            raise DataError(f"the column {name!r} stands {columns.count(name)} times in the header",
                            where=file, remedy="give every column a name of its own")
        if name not in columns:
            raise DataError(f"there is no column {name!r}; {nearest(name, columns)}", where=file,
                            remedy="name a column that is there, or set data.format, data.delimiter or "
                                   "data.header")


def nearest(name: str, columns: tuple[str, ...]) -> str:
    """Say which columns come near, and which there are."""
    near = difflib.get_close_matches(name, columns, n=3, cutoff=0.5)
    shown = ", ".join(repr(column[:60]) for column in columns[:20]) + (", ..." if len(columns) > 20 else "")
    return (f"nearest: {', '.join(map(repr, near))}; " if near else "") + f"columns: {shown or 'none'}"


def _maker(settings: DataSettings) -> Callable[[Mapping[str, Any], Origin], Example]:
    fields = _fields_of(settings)
    if settings.messages is not None:
        return _from_messages(settings, settings.messages, fields)
    if settings.text is not None:
        return _from_text(settings, settings.text, fields)
    return _from_pair(settings, fields)


def _from_pair(settings: DataSettings, fields: Callable[[Mapping[str, Any], str], _Fields]
               ) -> Callable[[Mapping[str, Any], Origin], Example]:
    source_column, target_column = settings.source, settings.target or ""
    pieces, empty = template_columns(settings.template or ""), settings.allow_empty

    def make(values: Mapping[str, Any], origin: Origin) -> Example:
        if source_column is not None:
            source = as_text(values, source_column, empty)
        else:
            source = "".join(literal if name is None else literal + as_text(values, name, True, missing=empty)
                             for literal, name in pieces)
        target = as_text(values, target_column, empty)
        return Example(source, target, origin, fields(values, source))

    return make


def _from_text(settings: DataSettings, column: str, fields: Callable[[Mapping[str, Any], str], _Fields]
               ) -> Callable[[Mapping[str, Any], Origin], Example]:
    def make(values: Mapping[str, Any], origin: Origin) -> Example:
        return Example("", as_text(values, column, settings.allow_empty), origin, fields(values, ""))

    return make


def _from_messages(settings: DataSettings, column: str, fields: Callable[[Mapping[str, Any], str], _Fields]
                   ) -> Callable[[Mapping[str, Any], Origin], Example]:
    def make(values: Mapping[str, Any], origin: Origin) -> Example:
        source, target, turns = conversation(values, column, settings.max_json_depth)
        return Example(source, target, origin, fields(values, source), turns)

    return make


def _fields_of(settings: DataSettings) -> Callable[[Mapping[str, Any], str], _Fields]:
    """How the record is found: nothing, columns that are not empty, or an expression over the source."""
    if isinstance(settings.fields, str):
        find = lru_cache(CACHED_SOURCES)(partial(_found, re.compile(settings.fields)))
        return lambda values, source: find(source)
    names = settings.fields
    if names is None:
        names = tuple(dict.fromkeys(name for _, name in template_columns(settings.template or "") if name))
    if not names:
        return lambda values, source: ()

    def columns(values: Mapping[str, Any], source: str) -> _Fields:
        pairs = ((name, as_text(values, name, True, missing=settings.allow_empty)) for name in names)
        return tuple([pair for pair in pairs if pair[1]])

    return columns


def _found(expression: re.Pattern[str], source: str) -> _Fields:
    return tuple([(name.strip(), value.strip()) for name, value in expression.findall(source)])
