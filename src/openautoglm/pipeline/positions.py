"""YAML text into plain values, each with its place in the file, within bounds.

A task file may come from anywhere, so its size, depth and number of nodes are bounded (an alias that unfolds
without end is refused), no tag makes an object, and every fault is collected with line and column.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from openautoglm.core.errors import Fault

MAX_BYTES = 262_144
MAX_NODES = 20_000
MAX_DEPTH = 40

KeyPath = tuple[str | int, ...]


class Mark(NamedTuple):
    """A place in a file, both 1-based."""

    line: int
    column: int


class _TooMuchError(Exception):
    """The document unfolds beyond the bounds; carries the place where that was seen."""

    def __init__(self, what: str, node: yaml.Node) -> None:
        super().__init__(what)
        self.mark = _mark(node)


@dataclass
class Document:
    """The plain value of a YAML file, the marks of its keys and values, and the faults met on the way."""

    value: Any = None
    keys: dict[KeyPath, Mark] = field(default_factory=dict)
    values: dict[KeyPath, Mark] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def mark(self, path: KeyPath, *, of_key: bool = False) -> Mark:
        """The place of `path`, or of its nearest ancestor that stands in the file."""
        for end in range(len(path), -1, -1):
            exact = end == len(path)
            first, second = (self.keys, self.values) if of_key or not exact else (self.values, self.keys)
            found = first.get(path[:end]) or second.get(path[:end])
            if found:
                return found
        return Mark(1, 1)


def key_text(path: KeyPath) -> str:
    """``("clean", "rules", 2)`` as people write it: ``clean.rules[2]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "task"


def parse(data: bytes) -> Document:
    """Parse one YAML document; faults of syntax end up in ``Document.faults``, nothing is raised."""
    document = Document()
    if len(data) > MAX_BYTES:
        message = f"the file has {len(data):,} bytes; at most {MAX_BYTES:,} are read"
        document.faults.append(Fault("task", 0, 0, message))
        return document
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        document.faults.append(Fault("task", line, column, "the file is not UTF-8", "save it as UTF-8"))
        return document
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            document.value = _Builder(document).build(node, (), 0)
    except yaml.MarkedYAMLError as error:
        document.faults.append(_syntax_fault(error, text))
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = Mark(before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1)
        message = f"character U+{ord(text[error.position]):04X} is not allowed"
        document.faults.append(Fault("task", *place, message, "remove it"))
    except RecursionError:
        remedy = f"at most {MAX_DEPTH} levels"
        document.faults.append(Fault("task", 1, 1, "the file is nested too deeply", remedy))
    except _TooMuchError as error:
        remedy = "write the values out, without aliases"
        document.faults.append(Fault("task", *error.mark, str(error), remedy))
    return document


def _syntax_fault(error: yaml.MarkedYAMLError, text: str) -> Fault:
    mark = error.problem_mark or error.context_mark
    place = Mark(mark.line + 1, mark.column + 1) if mark else Mark(0, 0)
    lines = text.splitlines()
    line = lines[place.line - 1] if 0 < place.line <= len(lines) else ""
    if "\t" in line[: max(place.column, len(line) - len(line.lstrip()))]:
        return Fault("task", *place, "a tab cannot indent YAML", "indent with spaces")
    message = error.problem or "not valid YAML"
    if error.context:
        message = f"{message} ({error.context})"
    remedy = "check quotes, colons and indentation on this line"
    return Fault("task", *place, f"not valid YAML: {message}", remedy)


def _mark(node: yaml.Node) -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1)


class _Builder:
    """Builds plain values out of nodes and notes their marks."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.nodes = 0
        self.constructor = yaml.constructor.SafeConstructor()

    def build(self, node: yaml.Node, path: KeyPath, depth: int) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise _TooMuchError(f"the file unfolds to more than {MAX_NODES:,} values", node)
        if depth > MAX_DEPTH:
            raise _TooMuchError(f"the file is nested deeper than {MAX_DEPTH} levels", node)
        self.document.values[path] = _mark(node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, i), depth + 1) for i, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged |= self._merge(value_node, path, depth)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._fault(path, key_node, "a key must be a plain word", "write `key: value`")
                continue
            key = str(key_node.value)
            here = (*path, key)
            if key in own:
                first = self.document.keys[here].line
                message = f"the key {key!r} stands twice; first on line {first}"
                self._fault(here, key_node, message, "keep one of them")
                continue
            self.document.keys[here] = _mark(key_node)
            own[key] = self.build(value_node, here, depth + 1)
        return {**merged, **own}

    def _merge(self, node: yaml.Node, path: KeyPath, depth: int) -> dict[str, Any]:
        items = list(reversed(node.value)) if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for item in items:
            if not isinstance(item, yaml.MappingNode):
                self._fault(path, item, "`<<` merges mappings only", "point it at an anchor of a mapping")
                continue
            merged |= self._mapping(item, path, depth + 1)
            for key in merged:
                self.document.keys.pop((*path, key), None)
                self.document.values.setdefault((*path, key), _mark(node))
        return merged

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        try:
            return self.constructor.construct_object(node)
        except yaml.constructor.ConstructorError as error:
            self._fault(path, node, f"not a plain value: {error.problem}", "remove the tag")
        except (ValueError, OverflowError) as error:
            self._fault(path, node, f"not a plain value: {error}", "quote it if it is text")
        return None

    def _fault(self, path: KeyPath, node: yaml.Node, message: str, remedy: str) -> None:
        self.document.faults.append(Fault(key_text(path), *_mark(node), message, remedy))
