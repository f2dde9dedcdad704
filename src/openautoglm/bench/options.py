"""From the options of a command to settings; options are named as in ``vllm bench serve`` where it has them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from openautoglm.bench.settings import Arrivals, Judgement, LoadSettings, Prompts
from openautoglm.core.errors import Fault, TaskError

_REPLAY = {"trace": "path", "trace_rate_scale": "rate_scale", "trace_length_scale": "length_scale",
           "trace_start_s": "start_s", "trace_duration_s": "duration_s", "max_input_len": "max_input_len",
           "max_output_len": "max_output_len"}
_OTHER_NAMES = {"dataset_path": "dataset", "metric_percentiles": "percentiles"}
_OPTION_OF = {"dataset": "dataset_path", "percentiles": "metric_percentiles"}


def load_settings(given: Mapping[str, Any]) -> LoadSettings:
    """The settings of a load; options that are None were left out, those that are none of its own are passed over.

    Raises:
        TaskError: an option is out of its range, or they do not fit together; names all such options.
    """
    options = {_OTHER_NAMES.get(name, name): value for name, value in given.items() if value not in (None, ())}
    if "goodput" in options:
        options["goodput"] = bounds(options["goodput"])
    if "percentiles" in options:
        options["percentiles"] = numbers(options["percentiles"], "--metric-percentiles")
    replay = {ours: given[name] for name, ours in _REPLAY.items() if given.get(name) is not None}
    if replay and "path" not in replay:
        raise TaskError("options of a trace, but no trace", where="--trace", remedy="give --trace FILE with them")
    values = {part: {name: options[name] for name in model.model_fields if name in options}
              for part, model in (("arrivals", Arrivals), ("prompts", Prompts), ("judge", Judgement))}
    seed = options.get("seed", 0)
    values["prompts"].pop("seed", None)
    try:
        return LoadSettings.model_validate({**values, "replay": replay or None, "seed": seed})
    except ValidationError as error:
        raise faulty(error) from error


def faulty(error: ValidationError) -> TaskError:
    """A fault of options, each named as it is written on the command line."""
    faults = []
    for item in error.errors():
        names = [str(part) for part in item["loc"] if isinstance(part, str)]
        last = names[-1] if names else ""
        back = {ours: name for name, ours in _REPLAY.items()} if "replay" in names else _OPTION_OF
        option = back.get(last, last)
        known = option and option not in ("arrivals", "replay", "prompts", "judge")
        faults.append(Fault(f"--{option.replace('_', '-')}" if known else "options", 0, 0,
                            item["msg"].removeprefix("Value error, ")))
    return TaskError("wrong options", remedy="change these", faults=tuple(faults))


def bounds(given: Sequence[str]) -> dict[str, float]:
    """``["ttft:500 tpot:50"]`` or ``["ttft:500", "tpot:50"]`` as bounds in milliseconds by name.

    Raises:
        TaskError: not of this form.
    """
    found = {}
    for pair in " ".join(given).replace(",", " ").split():
        name, _, value = pair.partition(":")
        try:
            found[name] = float(value)
        except ValueError as error:
            raise TaskError(f"{pair!r} is no bound", where="--goodput",
                            remedy="write NAME:MILLISECONDS, e.g. ttft:500") from error
    return found


def numbers(text: str, where: str) -> tuple[float, ...]:
    """``50,90,99`` as numbers.

    Raises:
        TaskError: not of this form.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise TaskError(f"{text!r} is no list of numbers", where=where, remedy="write e.g. 50,90,99") from error


def pairs(given: Sequence[str] | None, where: str) -> dict[str, str]:
    """``NAME=VALUE`` each.

    Raises:
        TaskError: not of this form.
    """
    found = {}
    for pair in given or ():
        name, sign, value = pair.partition("=")
        if not sign or not name.strip():
            raise TaskError(f"{pair!r} is no pair", where=where, remedy="write NAME=VALUE")
        found[name.strip()] = value.strip()
    return found


def json_object(text: str | None, where: str) -> dict[str, Any]:
    """A JSON object; empty where none is given.

    Raises:
        TaskError: not of this form.
    """
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise TaskError(f"is no JSON: {error}", where=where, remedy='write e.g. \'{"user": "bench"}\'') from error
    if not isinstance(value, dict):
        raise TaskError("is no JSON object", where=where, remedy='write e.g. \'{"user": "bench"}\'')
    return value
