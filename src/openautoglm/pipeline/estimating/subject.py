"""What an estimate is about: a task file, a folder with a configuration, a preset's name, or a spec in YAML."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from openautoglm.core.errors import SpecError, TaskError
from openautoglm.models.checkpoint import read_spec
from openautoglm.models.presets import PRESETS, RELEASED, preset
from openautoglm.models.spec import GlmSpec


@dataclass(frozen=True)
class Subject:
    """What is estimated.

    Attributes:
        name: as it was given.
        spec: of a model; None of a task, whose plan makes it.
        folder: of a bundle or checkpoint; its weights may be missing.
        task: the task file.
        bf16: the weights are known to be stored in bf16: those of released checkpoints.
    """

    name: str
    spec: GlmSpec | None = None
    folder: Path | None = None
    task: Path | None = None
    bf16: bool = False


def subject_of(text: str) -> Subject:
    """Find out what was named.

    Raises:
        TaskError: there is nothing of that name; the remedy names what is near.
        SpecError, BundleError: a folder's configuration or a spec cannot be used.
    """
    path = Path(text)
    if path.is_dir():
        return Subject(text, spec=read_spec(path), folder=path)
    if path.is_file():
        return _of_file(path, text)
    if text in PRESETS:
        return Subject(text, spec=preset(text), bf16=text in RELEASED)
    near = difflib.get_close_matches(text, PRESETS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise TaskError("is no file, no folder and no preset", where=text,
                    remedy=f"{hint}give a task file, a folder with config.json, or one of {', '.join(PRESETS)}")


def _of_file(path: Path, text: str) -> Subject:
    """A YAML file: a spec where it names layers and widths, else a task; a config.json: its folder's."""
    if path.name == "config.json":
        return Subject(text, spec=read_spec(path.parent), folder=path.parent)
    if path.suffix not in (".yaml", ".yml"):
        raise TaskError("is neither a task file (.yaml) nor a config.json", where=text,
                        remedy="unpack an archive and give its folder")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        found = None  # the reader of task files says what is wrong, and where
    if not isinstance(found, dict) or "hidden_size" not in found:
        return Subject(text, task=path)
    try:
        return Subject(text, spec=GlmSpec.model_validate(found))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'spec'}: {item['msg']}" for item in error.errors())
        raise SpecError(f"the spec cannot be used: {faults}", where=text,
                        remedy="give the fields of GlmSpec, as docs/estimate.md shows") from error
