"""Regular expressions of users: checked when they are read, and stopped when they run away.

The ``regex`` package is used because it can be given a time limit: a pattern with catastrophic backtracking
ends in an error that names pattern and row, never in a run that hangs.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any

from pydantic import AfterValidator

from openautoglm.core.errors import RuleError
from openautoglm.core.extras import require
from openautoglm.core.values import Example


@functools.lru_cache(maxsize=256)
def compiled(pattern: str, ignore_case: bool = False) -> Any:
    """Return `pattern` compiled.

    Raises:
        ValueError: it is not a regular expression.
    """
    regex = require("regex", "train")
    try:
        return regex.compile(pattern, regex.IGNORECASE if ignore_case else 0)
    except regex.error as error:
        raise ValueError(f"not a regular expression: {error}") from error


def _checked(pattern: str) -> str:
    compiled(pattern)
    return pattern


RegexText = Annotated[str, AfterValidator(_checked)]
"""A regular expression in the dialect of the ``regex`` package, which extends that of ``re``."""


def check_replacement(pattern: str, by: str) -> None:
    """Check that the replacement `by` refers only to groups that `pattern` has.

    Raises:
        ValueError: it does not.
    """
    regex = require("regex", "train")
    try:
        regex.sub(f"(?:{pattern})|", by, "")
    except (regex.error, IndexError) as error:
        raise ValueError(f"the replacement does not fit the pattern: {error}") from error


def found(pattern: Any, text: str, timeout_s: float, example: Example) -> bool:
    """Return whether `pattern` occurs in `text`.

    Raises:
        RuleError: it took longer than `timeout_s`.
    """
    try:
        return pattern.search(text, timeout=timeout_s) is not None
    except TimeoutError as error:
        raise _runaway(pattern, timeout_s, example) from error


def substituted(pattern: Any, by: str, text: str, timeout_s: float, example: Example) -> str:
    """Return `text` with every match of `pattern` replaced by `by`.

    Raises:
        RuleError: it took longer than `timeout_s`.
    """
    try:
        return str(pattern.sub(by, text, timeout=timeout_s))
    except TimeoutError as error:
        raise _runaway(pattern, timeout_s, example) from error


def _runaway(pattern: Any, timeout_s: float, example: Example) -> RuleError:
    return RuleError(
        f"the regular expression {pattern.pattern!r} took longer than {timeout_s:g} s on one text",
        where=str(example.origin), remedy="avoid nested repetitions such as (a+)+, or raise timeout_s")
