"""What a client may ask of an answer's form, the checks that need no library, and the form in its language."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from pydantic import Field, model_validator

from openautoglm.core.errors import GenerationError
from openautoglm.core.settings import Settings

_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_SINGLE = ("items", "additionalItems", "additionalProperties", "contains", "propertyNames", "not", "if", "then",
           "else", "unevaluatedItems", "unevaluatedProperties")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_LARGEST = 2**53
_SPACE = r"[ \t\n\r]{1,20}"
_HEADER = '%llguidance {"no_forcing": true}\nstart: '
"""Any tokenisation of an allowed text is allowed, so that the mask depends on the text alone."""

Schema = dict[str, Any] | bool


class Grammar(Settings):
    """The form of an answer; exactly one of the first four.

    Attributes:
        json_schema: a JSON value that this schema (draft 2020-12) describes; properties come in the schema's order.
        json_object: any JSON object.
        regex: text that this pattern matches as a whole; Rust's regex syntax without looking around.
        choice: one of these texts.
        compact: JSON without spaces between its parts; else up to 20 in each place.
    """

    json_schema: Schema | None = None
    json_object: bool = False
    regex: str | None = None
    choice: tuple[str, ...] | None = Field(default=None, min_length=1)
    compact: bool = False

    @model_validator(mode="after")
    def _is_one(self) -> Grammar:
        given = [name for name in ("json_schema", "regex", "choice") if getattr(self, name) is not None]
        given += ["json_object"] * self.json_object
        if len(given) != 1:
            raise ValueError(f"give exactly one of json_schema, json_object, regex and choice, not "
                             f"{' and '.join(given) or 'none'}")
        return self

    @property
    def kind(self) -> str:
        """The name of the one that is given."""
        names = ("json_schema", "regex", "choice")
        return next((name for name in names if getattr(self, name) is not None), "json_object")


class GrammarLimits(Settings):
    """What a grammar may take; defaults suit clients that nobody vouches for.

    Attributes:
        schema_bytes: of a schema as compact JSON, of a regex or of all choices together.
        schema_depth: levels of nesting.
        time_s: for trying a grammar out; longer ones are refused.
        memory_bytes: for trying a grammar out.
        cache_bytes: that compiled grammars may take together; those unused for longest go first.
        waiting: calls of `GrammarCompiler.compile` that may wait for others; further ones are refused.
        step_fuel: work on one mask, about 14,000 a millisecond.
        step_items: states of the parser for one mask, about 20,000 a millisecond.
        table_states: entries of a grammar's table, up to about a kilobyte each.
        symbols: of the grammar that a schema becomes.
    """

    schema_bytes: int = Field(default=65_536, ge=16)
    schema_depth: int = Field(default=48, ge=1, le=48)
    time_s: float = Field(default=5.0, gt=0)
    memory_bytes: int = Field(default=128 << 20, ge=16 << 20)
    cache_bytes: int = Field(default=128 << 20, ge=0)
    waiting: int = Field(default=16, ge=0)
    step_fuel: int = Field(default=100_000, ge=1000)
    step_items: int = Field(default=50_000, ge=1000)
    table_states: int = Field(default=20_000, ge=100)
    symbols: int = Field(default=100_000, ge=100)

    @property
    def library(self) -> dict[str, int]:
        """The bounds that the library keeps itself, by its own names."""
        return {"step_lexer_fuel": self.step_fuel, "step_max_items": self.step_items,
                "max_lexer_states": self.table_states, "max_grammar_size": self.symbols}


def source_of(grammar: Grammar, limits: GrammarLimits) -> str:
    """Check a grammar as far as is possible without compiling it, and write it in the library's language.

    Raises:
        GenerationError: it is too large or too deep, refers to other documents, or is no JSON.
    """
    if grammar.regex is not None:
        _bound("regex", len(grammar.regex.encode(errors="replace")), limits)
        return f"{_HEADER}/{_in_slashes(grammar.regex)}/"
    if grammar.choice is not None:
        _bound("choice", sum(len(text.encode(errors="replace")) for text in grammar.choice), limits)
        _check_choices(grammar.choice)
        return _HEADER + " | ".join(json.dumps(text) for text in sorted(set(grammar.choice)))
    schema = {"type": "object"} if grammar.json_schema is None else grammar.json_schema
    check_schema(schema, limits)
    space = {"whitespace_flexible": False} if grammar.compact else {"whitespace_pattern": _SPACE}
    return f"{_HEADER}%json {dumps({'x-guidance': space, **as_mapping(schema)})}"


def check_schema(schema: Schema, limits: GrammarLimits) -> None:
    """Check a schema's size, depth, numbers and references.

    Raises:
        GenerationError: as `source_of`.
    """
    _check_values(schema, limits)
    try:
        _bound("json_schema", len(dumps(schema)), limits)
    except (TypeError, ValueError) as error:
        raise GenerationError(f"is no JSON: {error}", where="json_schema",
                              remedy="use strings, finite numbers, booleans, null, lists and mappings") from error
    if "x-guidance" in as_mapping(schema):
        raise GenerationError("a schema must not set the library's own options", where="json_schema.x-guidance",
                              remedy="leave x-guidance out")
    for path, part in parts(schema):
        for word in _REFERENCES:
            target = part.get(word)
            if isinstance(target, str) and not target.startswith("#"):
                raise GenerationError(f"refers to {target[:80]!r}, outside the schema; nothing is fetched",
                                      where=f"{path}.{word}",
                                      remedy="put it under $defs and refer to it as #/$defs/NAME")


def parts(schema: Schema, path: str = "json_schema") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the schema and all schemas inside it with their places, outer ones first."""
    if not isinstance(schema, dict):
        return
    yield path, schema
    for word in _SINGLE:
        if isinstance(schema.get(word), dict):
            yield from parts(schema[word], f"{path}.{word}")
    for word in _MAPS:
        if isinstance(schema.get(word), dict):
            for name, part in schema[word].items():
                yield from parts(part, f"{path}.{word}.{name}")
    for word in _LISTS:
        if isinstance(schema.get(word), list):
            for number, part in enumerate(schema[word]):
                yield from parts(part, f"{path}.{word}[{number}]")


def dumps(value: object) -> str:
    """Compact JSON in the order given; ASCII, so that no odd character reaches the library's parser."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def as_mapping(schema: Schema) -> dict[str, Any]:
    """A schema as a mapping: `true` allows everything, `false` nothing."""
    if isinstance(schema, dict):
        return schema
    return {} if schema else {"enum": []}


def _bound(where: str, size: int, limits: GrammarLimits) -> None:
    if size > limits.schema_bytes:
        raise GenerationError(f"has {size} bytes, {limits.schema_bytes} are allowed", where=where,
                              remedy="make it smaller, or raise schema_bytes")


def _check_values(schema: Schema, limits: GrammarLimits) -> None:
    """Look at all values, level by level."""
    level: list[Any] = [schema]
    for _ in range(limits.schema_depth + 1):
        for value in level:
            if isinstance(value, int) and abs(value) > _LARGEST:
                raise GenerationError(f"holds a number of {len(str(abs(value)))} digits, which the library would round",
                                      where="json_schema", remedy=f"use numbers up to {_LARGEST}, or a string")
        inner = [part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list)]
        level = [value for values in inner for value in values]
        if not level:
            return
    raise GenerationError(f"is nested more than {limits.schema_depth} levels deep", where="json_schema",
                          remedy="use $defs and $ref for what repeats")


def _check_choices(choices: tuple[str, ...]) -> None:
    for number, text in enumerate(choices):
        if not text or any(0xD800 <= ord(character) <= 0xDFFF for character in text):
            raise GenerationError("is empty" if not text else "is not Unicode text", where=f"choice[{number}]",
                                  remedy="give texts of at least one character")


def _in_slashes(regex: str) -> str:
    """A regex as it stands between slashes; its meaning stays."""
    try:
        regex.encode()
    except UnicodeEncodeError as error:
        raise GenerationError("is not Unicode text", where="regex", remedy="give valid Unicode") from error
    if not regex:
        raise GenerationError("is empty", where="regex", remedy="give a pattern, e.g. [a-z]+")
    plain = {"/": r"\/", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
    return re.sub(r"\\.|[/\n\r\t]", lambda found: _escaped(found[0], plain), regex, flags=re.DOTALL)


def _escaped(found: str, plain: dict[str, str]) -> str:
    return plain.get(found[-1], found)
