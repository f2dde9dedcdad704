"""Writes docs/task-reference.md from the settings models: ``python -m openautoglm.pipeline.reference [FILE]``."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from openautoglm.core.files import atomic_write
from openautoglm.pipeline.task import Task

_HEAD = """# Task file reference

This file is written by `python -m openautoglm.pipeline.reference` from the settings models; a test keeps it up to date.

A task file is one YAML mapping. Only `data` is required. Unknown keys are refused, and every fault of a file is
reported at once with its line and column. In paths (`data.train`, `data.valid`, `data.test`, `tokenizer.path`,
`model.checkpoint`, `distill.teacher`, `search.storage`, `export.to`, `output`) the forms `${NAME}` and
`${NAME:-default}` stand for environment variables; relative paths start from the task file's folder.

One dial first: `model.size` and `budget.minutes` set everything that is left out; what you write wins.
`autoglm check TASK` shows what would be chosen, and a run keeps it, with reasons, in `plan.json`.
"""

def reference() -> str:
    """The whole document."""
    parts = [_HEAD, "## Top level\n", *_table(Task)]
    for name, field in Task.model_fields.items():
        for model in _models_of(field.annotation):
            parts += _section(name, model)
    parts += _rules()
    return "\n".join(parts).rstrip() + "\n"


def _section(key: str, model: type[BaseModel], shown: set[type[BaseModel]] | None = None) -> Iterator[str]:
    """A model and those in it; inside one of several that may stand in a place, what was `shown` is left out."""
    yield f"\n## `{key}`\n"
    yield _first_paragraph(model) + "\n"
    yield from _table(model)
    for name, field in model.model_fields.items():
        inner, one_of = _models_of(field.annotation), shown
        place = f"{key}.{name}.NAME" if get_origin(_bare(field.annotation)) is dict else f"{key}.{name}"
        if len(inner) > 1 and one_of is None:
            one_of = set()
        for each in inner:
            if one_of is not None and each in one_of:
                continue
            if one_of is not None:
                one_of.add(each)
            yield from _section(f"{place}: {each.model_fields['method'].default}" if len(inner) > 1 else place, each,
                                one_of)


def _table(model: type[BaseModel]) -> Iterator[str]:
    described = _descriptions(model)
    yield "| key | type | default | what it means |"
    yield "|---|---|---|---|"
    for name, field in model.model_fields.items():
        inner = _models_of(field.annotation)
        text = field.description or described.get(name, "Names the step." if name == "method" else "")
        if not text and inner:
            text = _first_paragraph(inner[0]).partition("\n\n")[0]
        yield f"| `{name}` | {_cell(_type(field))} | {_cell(_default(field))} | {_prose(text)} |"


def _rules() -> Iterator[str]:
    from openautoglm.data.rules.registry import rule_class, rule_names

    yield "\n## Cleaning rules\n"
    yield "Items of `clean.rules`: a name, or a name with its settings. Plug-ins may add more (`openautoglm.rules`)."
    for name in rule_names():
        rule = rule_class(name)
        if not rule.__module__.startswith("openautoglm."):
            continue  # a plug-in of this machine, not of the package
        yield f"\n### `{name}`\n"
        yield _first_paragraph(rule) + "\n"
        if rule.model_fields:
            yield from _table(rule)


def _descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Texts under attributes, and the ``Attributes:`` part of docstrings, the nearest class winning."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not issubclass(cls, BaseModel) or cls is BaseModel or not cls.__module__.startswith("openautoglm."):
            continue
        found |= _of_docstring(inspect.cleandoc(cls.__doc__ or ""))
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for before, after in zip(tree.body, tree.body[1:], strict=False):
            if (isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name)
                    and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)):
                found[before.target.id] = " ".join(str(after.value.value).split())
    return found


def _of_docstring(text: str) -> dict[str, str]:
    _, _, attributes = text.partition("Attributes:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in attributes.splitlines():
        if line and not line.startswith(" "):
            break
        head = re.match(r"    ([a-z_0-9, ]+): (.*)", line)
        if head and not line.startswith("     "):
            names = [name.strip() for name in head[1].split(",")]
            found |= dict.fromkeys(names, head[2])
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _first_paragraph(model: type[BaseModel]) -> str:
    return inspect.cleandoc(model.__doc__ or "").partition("Attributes:")[0].strip()


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    """The settings models in an annotation, also as the values of a mapping or the items of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return list(dict.fromkeys(model for part in get_args(annotation) for model in _models_of(part)))


def _bare(annotation: Any) -> Any:
    """The annotation without None."""
    parts = [part for part in get_args(annotation) if part is not type(None)]
    return parts[0] if len(parts) == 1 and type(None) in get_args(annotation) else annotation


def _type(field: FieldInfo) -> str:
    return _named(field.annotation)


def _named(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation is type(None):
        return "null"
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (tuple, list):
        kinds = dict.fromkeys(_named(part) for part in parts if part is not Ellipsis)
        return "list of " + " / ".join(kinds)
    if origin is dict:
        return f"mapping of name to {_named(parts[1])}"
    if origin is Union or str(origin) == "<class 'types.UnionType'>":
        return " or ".join(dict.fromkeys(_named(part) for part in parts))
    if parts and hasattr(annotation, "__metadata__"):
        return _named(parts[0])
    if annotation is Any:
        return "any"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    name = str(annotation.__name__)
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}.get(name, name)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or isinstance(value, BaseModel):
        return ""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(str, value)) + "]"
    return "{}" if value == {} else f"{value}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _prose(text: str) -> str:
    """A docstring's words as a reader of YAML knows them."""
    text = re.sub(r"\bNone\b", "null", _cell(text).replace("``", "`"))
    return text[:1].upper() + text[1:]


def main(arguments: list[str]) -> None:
    """Write the document to the file named, else to standard output."""
    if not arguments:
        sys.stdout.write(reference())
        return
    with atomic_write(Path(arguments[0])) as file:
        file.write(reference())


if __name__ == "__main__":
    main(sys.argv[1:])
