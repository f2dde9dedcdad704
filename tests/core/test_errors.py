"""The error tree: drawn as it is, and every error names place and remedy."""

from __future__ import annotations

import inspect
import re

from openautoglm.core import errors
from openautoglm.core.errors import AutoGLMError, DataError, Fault, MissingExtraError, TaskError


def test_the_drawing_shows_every_error_under_its_parent() -> None:
    drawn: dict[str, str] = {}
    parents = {0: "AutoGLMError"}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^([ │]*)[├└]── (\w+)", line)
        if found:
            depth = (len(found[1]) - 4) // 4 + 1
            drawn[found[2]] = parents[depth - 1]
            parents[depth] = found[2]
    real = {name: kind.__base__.__name__ for name, kind in vars(errors).items()
            if inspect.isclass(kind) and issubclass(kind, AutoGLMError) and kind is not AutoGLMError}
    assert drawn == real


def test_an_error_tells_place_message_and_remedy() -> None:
    error = DataError("the row has 3 cells, not 2", where="a.csv:17", remedy="quote the comma")
    assert str(error) == "a.csv:17: the row has 3 cells, not 2\n  remedy: quote the comma"
    assert str(DataError("empty")) == "empty"


def test_a_task_error_lists_every_fault() -> None:
    faults = (Fault("train.lr", 4, 7, "not a number", "write 1e-3"), Fault("data", 0, 0, "missing"))
    text = str(TaskError("2 faults", where="task.yaml", faults=faults))
    assert "line 4, column 7: train.lr: not a number (write 1e-3)" in text
    assert text.endswith("- data: missing")


def test_a_missing_extra_says_how_to_install_it() -> None:
    assert "pip install 'openautoglm[serve]'" in str(MissingExtraError("fastapi", "serve"))
