"""What the `data` section of a task says: which files, in which format, and how a row becomes an example."""

from __future__ import annotations

import codecs
import re
from pathlib import PurePath
from string import Formatter
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from openautoglm.core.settings import Settings

Format = Literal["auto", "csv", "tsv", "jsonl", "json", "parquet", "text"]
NOT_TEXT_CODECS = frozenset({"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "mbcs"})


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str | PurePath) else value


def _column_name(default: str) -> BeforeValidator:
    def name(value: Any) -> Any:
        return {True: default, False: None}.get(value, value) if isinstance(value, bool) else value

    return BeforeValidator(name)


Paths = Annotated[tuple[str, ...],
                  BeforeValidator(lambda value: tuple(str(item) for item in _as_tuple(value)))]
Columns = Annotated[tuple[str, ...] | str | None,
                    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]


def template_columns(template: str) -> list[tuple[str, str | None]]:
    """Split a record template into (literal text, column name or None) pieces.

    Raises:
        ValueError: braces do not match, a name is empty, or a conversion or format is given (``{a!r}``,
            ``{a:>9}``).
    """
    pieces: list[tuple[str, str | None]] = []
    for literal, name, spec, conversion in Formatter().parse(template):
        if name is not None and (not name.strip() or spec or conversion):
            raise ValueError(f"the template may hold only plain column names like {{name}}, found {{{name}"
                             f"{'!' + conversion if conversion else ''}{':' + spec if spec else ''}}}")
        pieces.append((literal, name))
    return pieces


class DataSettings(Settings):
    """Files and how their rows become examples.

    Exactly one shape is chosen: `source` (or `template`) with `target`, or `messages`, or `text`.
    """

    train: Paths = Field(
        description="Training files: one path or a list; globs are allowed; relative to the task file. "
        "Files ending in .gz, or gzip by their first bytes, are decompressed while they are read.")
    valid: Paths = Field(
        default=(), description="Validation files, as for `train`. Left out, a part of `train` is split off.")
    test: Paths = Field(
        default=(), description="Test files, as for `train`; never seen by training or search. "
        "Left out, a part of `train` is split off.")
    format: Format = Field(
        default="auto", description="File format. `auto` goes by the ending (.csv .tsv .jsonl .ndjson .json "
        ".parquet .txt, with or without .gz); a .json file of one object a line is read as jsonl.")
    source: str | None = Field(
        default=None, description="Column that holds the input text (the prompt).")
    target: str | None = Field(
        default=None, description="Column that holds the text to be learnt (the completion). "
        "Numbers become text as they are written, true and false become words, "
        "a list of strings becomes lines joined by a newline.")
    template: str | None = Field(
        default=None,
        description="Record template that makes the input text from columns, instead of `source`, "
        "e.g. `\"{name}: {food}\"`. Plain column names only; `{{` and `}}` stand for braces; "
        "a null column becomes nothing.")
    messages: Annotated[str | None, _column_name("messages")] = Field(
        default=None,
        description="Column that holds a conversation in OpenAI form (a list of role and content; "
        "JSON text in CSV). One example per conversation: the last assistant turn is the target, the user "
        "turn "
        "before it the source, and everything earlier its context. `true` means the column `messages`.")
    text: Annotated[str | None, _column_name("text")] = Field(
        default=None,
        description="Column that holds running text for plain language modelling (no input text). "
        "Plain text files have one column, `text`. `true` means the column `text`.")
    text_unit: Literal["paragraph", "line"] = Field(
        default="paragraph",
        description="What one row of a plain text file is: a paragraph (blank lines separate) "
        "or every line that is not blank.")
    fields: Columns = Field(
        default=None,
        description="The record behind the source, used by coverage rules and scores: a list of "
        "columns, or a regular expression with two groups (name, value) searched in the source, e.g. "
        r"`([\w ]+)\[([^\]]*)\]`. With `template` it is the template's columns unless given.")
    encoding: str = Field(
        default="auto",
        description="Text encoding, e.g. utf-8, gb18030, latin-1, utf-16. `auto`: UTF-8 with or "
        "without a byte-order mark, or UTF-16/32 with one.")
    delimiter: str | None = Field(
        default=None, description="One character between cells. Default: comma for csv, tab for tsv.")
    quoting: bool = Field(
        default=True, description="Whether double quotes enclose csv and tsv cells; "
        "false takes them as ordinary characters.")
    header: tuple[str, ...] | None = Field(
        default=None, description="Column names of csv and tsv files that have no header row. "
        "Default: the first row names the columns.")
    allow_empty: bool = Field(
        default=False,
        description="Let rows with an empty, null or missing source or target through as empty text, "
        "for a cleaning rule to drop or fill; false rejects them.")
    max_reject_ratio: float = Field(
        default=0.01, ge=0, le=1, description="Largest share (0 to 1) of rows that may be unreadable; "
        "above it the run stops.")
    max_row_bytes: int = Field(
        default=1 << 20, ge=64, le=1 << 30,
        description="Largest size of one row in bytes; a longer one is rejected "
        "and skipped without being held in memory.")
    max_json_depth: int = Field(
        default=64, ge=1, le=200,
        description="Deepest nesting of brackets in one JSON row; a deeper one is rejected.")

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        known = "try utf-8, gb18030, latin-1 or utf-16"
        if value == "auto":
            return value
        try:
            "".encode(value)
            name = codecs.lookup(value).name
        except (LookupError, UnicodeError, ValueError) as error:
            raise ValueError(f"{value!r} is not a text encoding; {known}") from error
        if name.replace("-", "_") in NOT_TEXT_CODECS:
            raise ValueError(f"{value!r} is not an encoding of text files; {known}")
        return value

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        if value is not None and (len(value) != 1 or value in '"\r\n\0'):
            raise ValueError("the delimiter is one character, not a quote, line break or NUL")
        return value

    @field_validator("template")
    @classmethod
    def _plain_template(cls, value: str | None) -> str | None:
        if value is not None and not any(name for _, name in template_columns(value)):
            raise ValueError("the template names no column; write e.g. \"{name}: {food}\"")
        return value

    @field_validator("fields")
    @classmethod
    def _two_groups(cls, value: tuple[str, ...] | str | None) -> tuple[str, ...] | str | None:
        if isinstance(value, str):
            try:
                groups = re.compile(value).groups
            except (re.error, RecursionError, OverflowError) as error:
                raise ValueError(f"not a regular expression: {error}") from error
            if groups != 2:
                raise ValueError(f"the expression needs two groups (name, value), it has {groups}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _text_files(cls, values: Any) -> Any:
        if not isinstance(values, dict) or {"source", "template", "target", "messages",
                                            "text"} & values.keys():
            return values
        train = _as_tuple(values.get("train"))
        listed = train if isinstance(train, list | tuple) else ()
        named = [str(path).removesuffix(".gz") for path in listed]
        plain = values.get("format") == "text" or (values.get("format", "auto") == "auto" and named
                                                   and all(path.endswith(".txt") for path in named))
        return {**values, "text": "text"} if plain else values

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        pair = self.source is not None or self.template is not None
        shapes = [name for name, given in (("source/template", pair), ("messages", self.messages is not None),
                                           ("text", self.text is not None)) if given]
        if not self.train:
            raise ValueError("train names no file")
        if len(shapes) != 1:
            raise ValueError("say how a row becomes an example with exactly one of: source and target, "
                             "template and "
                             f"target, messages, text (given: {', '.join(shapes) or 'none'})")
        if self.source is not None and self.template is not None:
            raise ValueError("source and template exclude each other: both make the input text")
        if pair != (self.target is not None):
            raise ValueError("target is needed with source or template, and only there")
        return self

    def needed_columns(self) -> tuple[str, ...]:
        """Every column that a row must have, in order of use, without repeats."""
        names = [self.source, *(name for _, name in template_columns(self.template or "")), self.target,
                 self.messages, self.text, *(self.fields if isinstance(self.fields, tuple) else ())]
        return tuple(dict.fromkeys(name for name in names if name is not None))
