"""From the options of a command to a recipe and its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openautoglm.core.errors import CompressError, TaskError
from openautoglm.models.bundle import Bundle
from openautoglm.pipeline.compressing.material import Material, of_files, of_run
from openautoglm.pipeline.compressing.recipe import Recipe, load_recipe, make_recipe

_QUANTISING = ("rtn", "gptq", "awq", "mixed")
_BY_NAME = (*_QUANTISING, "prune", "distill", "kv")


def recipe_of(text: str, *, bits: int | None, group: int | None, given: Mapping[str, Any]) -> tuple[Recipe, Path]:
    """A recipe from its file, from names of methods, or ``auto``; and the folder where its relative paths begin.

    Args:
        bits, group: of the quantising method among the names.
        given: keys of the recipe; None stands for one that was left out.

    Raises:
        TaskError: the recipe has faults.
    """
    options = {name: value for name, value in given.items() if value is not None}
    form = {name: value for name, value in (("bits", bits), ("group", group)) if value is not None}
    path = Path(text)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if form:
            raise TaskError(f"--{next(iter(form))} goes with names of methods, not with a recipe file", where=text,
                            remedy="write it into the file")
        return load_recipe(path, options), path.parent
    names = [name.strip() for name in text.split(",")]
    if text == "auto":
        steps: Any = "auto"
    elif unknown := [name for name in names if name not in _BY_NAME]:
        raise TaskError(f"{unknown[0]!r} is neither a method nor a recipe file", where="--recipe",
                        remedy=f"use auto, a .yaml file, or {', '.join(_BY_NAME)}")
    else:
        steps = [{"method": name, **(_form(name, form) if name in _QUANTISING else {})} for name in names]
    if form and (text == "auto" or not set(names) & set(_QUANTISING)):
        raise TaskError(f"--{next(iter(form))} needs a quantising method", where="--recipe",
                        remedy=f"give one of {', '.join(_QUANTISING)}")
    return make_recipe({**options, "recipe": steps}), Path.cwd()


def _form(name: str, form: dict[str, int]) -> dict[str, Any]:
    if name != "mixed":
        return form
    if "bits" in form:
        raise TaskError("mixed chooses the bits of each matrix", where="--bits",
                        remedy="leave it out, or write average_bits into a recipe file")
    return {"base": {"method": "gptq", **form}} if form else {}


def material_of(bundle: Bundle, path: Path, *, run: Path | None, data: Sequence[str], calibration: Sequence[str],
                most: int | None, source: str | None, target: str | None) -> Material:
    """The data of a command: files, the given run, or the run that the bundle lies in.

    Raises:
        CompressError: there is none of them.
        DataError: files cannot be read.
    """
    around = run or next((folder for folder in list(path.resolve().parents)[:2]
                          if (folder / "data" / "valid.jsonl").is_file()), None)
    if data:
        found = of_files(bundle, data, calibration, most, source=source, target=target)
        return found if run is None else Material(found.cases, found.examples, of_run(run, 1).tokens, run)
    if around is None:
        raise CompressError("there is no data to measure on", where="--data",
                            remedy="give --data FILES (texts, for a released checkpoint), or --run FOLDER of the run "
                            "that made the bundle")
    return of_run(around, most)
