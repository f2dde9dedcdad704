"""What the command line says when it fails: message, place and remedy, no traceback for a fault of input."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise

import typer

from openautoglm.core import errors
from openautoglm.core.errors import AutoGLMError, TaskError

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130
_OF_INPUT = (TaskError, errors.DataError, errors.RuleError, errors.EvaluationError, errors.GenerationError)


def tell(error: BaseException, arguments: Sequence[str]) -> int | None:
    """Write `error` to standard error and return the exit code; None: not ours to tell, raise it."""
    if isinstance(error, typer.Exit):
        return int(error.exit_code)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        _say(f"interrupted; `autoglm {' '.join(arguments)}` again goes on where this stopped", arguments)
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # typer's own errors of usage
        _usage(error)
        return WRONG_INPUT
    if "--debug" in arguments:
        return None
    if isinstance(error, AutoGLMError):
        _ours(error, arguments)
        return WRONG_INPUT if isinstance(error, _OF_INPUT) or _asked_wrongly(error) else FAILED
    if isinstance(error, OSError) and error.filename:
        _say(f"error: {error.strerror}: {error.filename}", arguments)
        return FAILED
    return None


def _asked_wrongly(error: AutoGLMError) -> bool:
    """Whether it is a fault of the service's parts that asking otherwise would mend."""
    from openautoglm.serve.faults import Fault

    return isinstance(error, Fault) and error.row.status < 500 and not error.row.retryable


def _usage(error: BaseException) -> None:
    show = getattr(error, "show", None)
    if show is not None:
        show()


def _ours(error: AutoGLMError, arguments: Sequence[str]) -> None:
    if not _as_json(arguments):
        _say(f"error: {error}", arguments)
        return
    entry: dict[str, object] = {"level": "error", "error": type(error).__name__, "message": error.message,
                                "where": error.where, "remedy": error.remedy}
    if isinstance(error, TaskError):
        entry["faults"] = [asdict(fault) for fault in error.faults]
    print(json.dumps(entry, ensure_ascii=False), file=sys.stderr)


def _say(text: str, arguments: Sequence[str]) -> None:
    if _as_json(arguments):
        text = json.dumps({"level": "error", "message": text}, ensure_ascii=False)
    print(text, file=sys.stderr)


def _as_json(arguments: Sequence[str]) -> bool:
    return "--log-format=json" in arguments or ("--log-format", "json") in pairwise(arguments)
