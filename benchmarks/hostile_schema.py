"""Requests that schemathesis makes up from a server's OpenAPI document: right and wrong ones, in all of its phases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import schemathesis
from hostile_cases import SHORT, TIMEOUT_S, Tally, document_of
from schemathesis.config import (
    CoveragePhaseConfig,
    ExamplesPhaseConfig,
    FuzzingPhaseConfig,
    GenerationConfig,
    PhasesConfig,
    SchemathesisConfig,
    StatefulPhaseConfig,
)
from schemathesis.engine import Status, events, from_schema

UNMEANT = ("positive_data_acceptance",)
"""What fits the document may be refused all the same, with a reason: fields may not go together."""
_LENGTHS = {"/v1/completions": ("max_tokens",), "/v1/chat/completions": ("max_tokens", "max_completion_tokens")}


def by_schema(url: str, model: str, tally: Tally, examples: int, seed: int = 0,
              operations: Sequence[str] = ()) -> Counter[str]:
    """Let schemathesis make requests up, and check each reply against the document; counts by phase.

    Args:
        examples: made up for each operation, of each sort.
        operations: e.g. ``POST /v1/completions``; all where empty.
    """
    config = SchemathesisConfig(seed=seed)
    schema = schemathesis.openapi.from_dict(_part(document_of(url, model), operations), config=config)
    generation = GenerationConfig(max_examples=examples, database="none", no_shrink=True)
    schema.config.update(base_url=url, request_timeout=TIMEOUT_S, continue_on_failure=True)
    schema.config.generation = generation
    schema.config.phases = PhasesConfig(
        examples=ExamplesPhaseConfig(), coverage=CoveragePhaseConfig(), fuzzing=FuzzingPhaseConfig(),
        stateful=StatefulPhaseConfig(enabled=False))  # no route gives what another one takes
    for name in UNMEANT:
        getattr(schema.config.checks, name).enabled = False
    phases: Counter[str] = Counter()
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            _take(event, tally, phases)
        elif isinstance(event, events.NonFatalError):
            tally.violate(f"{event.label}: {event.info.format()[:900]}")
        elif isinstance(event, events.FatalError):
            raise event.exception
    return phases


@schemathesis.hook("before_call")
def _shorten(context: Any, case: Any, kwargs: Any) -> None:
    """Let answers be short, where nothing is wrong with their length."""
    body = case.body
    if not isinstance(body, dict) or case.path not in _LENGTHS:
        return
    for name in _LENGTHS[case.path]:
        most = body.get(name)
        if most is None or (type(most) is int and most > SHORT):
            body[name] = SHORT


def _take(event: events.ScenarioFinished, tally: Tally, phases: Counter[str]) -> None:
    recorder = event.recorder
    for number, interaction in recorder.interactions.items():
        phases[event.phase.value] += 1
        reply = interaction.response
        if reply is None:
            tally.count("schema", "no reply")
            tally.violate(f"{recorder.label}: no reply to {recorder.cases[number].value!r}")
            continue
        tally.count("schema", str(reply.status_code), reply.elapsed)
    for number, checks in recorder.checks.items():
        for check in checks:
            if check.status is Status.FAILURE and check.failure_info is not None:
                tally.violate(f"{recorder.label}: {check.name}: {check.failure_info.failure} "
                              f"{recorder.cases[number].value.body!r:.300}")


def _part(document: dict[str, Any], operations: Sequence[str]) -> dict[str, Any]:
    if operations:
        wanted = {tuple(operation.lower().split()) for operation in operations}
        paths = {path: {method: route for method, route in methods.items() if (method, path.lower()) in wanted}
                 for path, methods in document["paths"].items()}
        document["paths"] = {path: methods for path, methods in paths.items() if methods}
    return document
