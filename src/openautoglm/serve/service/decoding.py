"""How an ask is generated: the client's options, the card's recommendation for those it left out, and the form."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from openautoglm.engine.request import Decoding
from openautoglm.engine.sampling import Sampling
from openautoglm.serve.faults import BadRequest, Unsupported
from openautoglm.serve.orders import GrammarText
from openautoglm.serve.wire.asks import ChatAsk, CompletionAsk, GenerationAsk
from openautoglm.serve.wire.messages import NamedTool, Tool

_SAME = ("temperature", "top_p", "min_p", "repetition_penalty", "num_beams", "length_penalty")
_CHOOSES = frozenset({"num_beams", "length_penalty", "early_stop", "n", "choose", "utility"})
_ANY_OBJECT = {"type": "object"}


class Way(NamedTuple):
    """How an ask is generated.

    Attributes:
        decoding: for the engine; its `max_new_tokens` is the bound before the prompt's length is known.
        max_tokens: that the client asked for; None where it named no number.
        copies: answers that the client gets for each answer of the engine: greedy ones are all alike.
        rerank: how one of the engine's answers is chosen; None: the client gets them all.
        grammar: what answers must follow.
        tool: the function that an answer calls.
    """

    decoding: Decoding
    max_tokens: int | None
    copies: int = 1
    rerank: Sampling | None = None
    grammar: GrammarText | None = None
    tool: str | None = None


def way_of(ask: GenerationAsk, card: Mapping[str, Any]) -> Way:
    """Bring an ask and the card's recommended decoding together.

    Where a client names a temperature or beams, only the length is the card's, as for ``autoglm generate``. Beams and
    the choice among several texts are left out for answers that are streamed, for stop strings, log-probabilities, and
    where a number of answers is asked for.

    Raises:
        BadRequest: the options do not fit together.
        Unsupported: a tool that the template has no place for.
    """
    given = _given(ask)
    sampling = _merged(given, card, plain=_plain(ask))
    tool, grammar = _tool(ask) if isinstance(ask, ChatAsk) and ask.tools else (None, None)
    grammar = grammar or _grammar(ask)
    greedy = sampling.temperature == 0 and sampling.num_beams == 1
    wanted = ask.n or 1
    made = sampling.n if sampling.choose != "first" else (1 if greedy else wanted)
    try:
        decoding = Decoding.from_sampling(sampling, score=False, n=made, **_more(ask))
    except ValidationError as error:
        raise _wrong(error) from error
    return Way(decoding, _max_tokens(ask), wanted if greedy else 1, sampling if sampling.choose != "first" else None,
               grammar, tool)


def _given(ask: GenerationAsk) -> dict[str, Any]:
    """The client's options by the names of `Sampling`."""
    given = {name: value for name in _SAME if (value := getattr(ask, name)) is not None}
    if ask.top_k is not None:
        given["top_k"] = max(0, ask.top_k)  # -1 is all, too
    tokens = _max_tokens(ask)
    if tokens is not None:
        given["max_new_tokens"] = tokens
    given["seed"] = secrets.randbits(62) if ask.seed is None else ask.seed % 2**63
    return given


def _max_tokens(ask: GenerationAsk) -> int | None:
    return getattr(ask, "max_completion_tokens", None) or ask.max_tokens


def _plain(ask: GenerationAsk) -> bool:
    """Whether the answer must come as it grows, or is asked for in a number."""
    return bool(ask.stream or ask.stop or ask.n or getattr(ask, "logprobs", None) not in (None, False))


def _merged(given: Mapping[str, Any], card: Mapping[str, Any], *, plain: bool) -> Sampling:
    if {"num_beams", "temperature"} & given.keys():
        card = {name: card[name] for name in ("max_new_tokens",) if name in card}
    elif plain:
        card = {name: value for name, value in card.items() if name not in _CHOOSES}
    try:
        return Sampling.model_validate({**card, **given})
    except ValidationError as error:
        raise _wrong(error) from error


def _more(ask: GenerationAsk) -> dict[str, Any]:
    """Options that only the engine has."""
    logprobs = ask.logprobs if isinstance(ask, CompletionAsk) else None
    if isinstance(ask, ChatAsk) and ask.logprobs:
        logprobs = ask.top_logprobs or 0
    return {"min_tokens": ask.min_tokens or 0, "presence_penalty": ask.presence_penalty or 0.0,
            "frequency_penalty": ask.frequency_penalty or 0.0, "stop_ids": ask.stop_token_ids or (),
            "logit_bias": _bias(ask.logit_bias or {}), "ignore_stop": bool(ask.ignore_eos), "logprobs": logprobs}


def _bias(asked: Mapping[str, float]) -> tuple[tuple[int, float], ...]:
    by_id = {int(token): float(value) for token, value in asked.items()}
    if len(by_id) < len(asked):
        raise BadRequest("names an id twice", where="logit_bias", remedy="give each id once")
    return tuple(by_id.items())


def _grammar(ask: GenerationAsk) -> GrammarText | None:
    form, more = ask.response_format, ask.structured_outputs
    if (form is not None and form.type == "json_object") or (more is not None and more.json_object):
        return GrammarText("json_object")
    if form is not None and form.json_schema is not None:
        return GrammarText("json_schema", json.dumps(form.json_schema.schema_))
    if more is None:
        return None
    if more.json_ is not None:
        return GrammarText("json_schema", json.dumps(more.json_))
    if more.regex is not None:
        return GrammarText("regex", more.regex)
    return GrammarText("choice", json.dumps(more.choice))


def _tool(ask: ChatAsk) -> tuple[str | None, GrammarText | None]:
    """The function that must be called, and the form of its arguments.

    Raises:
        Unsupported: the model would have to choose, and the template has no place that tells it among what.
    """
    tools, choice = ask.tools or (), ask.tool_choice
    if choice == "none":
        return None, None
    if isinstance(choice, NamedTool):
        chosen = next(tool for tool in tools if tool.function.name == choice.function.name)
    elif choice == "required" and len(tools) == 1:
        chosen = tools[0]
    else:
        raise Unsupported("the bundle's template has no place for the description of functions, so the model cannot "
                          "choose among them", where="tools",
                          remedy="name one function in tool_choice, or describe them in a system message")
    if _grammar(ask) is not None:
        raise BadRequest("does not go with a function that must be called", where="response_format",
                         remedy="leave it out: the function's parameters are the form")
    return chosen.function.name, GrammarText("json_schema", json.dumps(_parameters(chosen)))


def _parameters(tool: Tool) -> dict[str, Any]:
    return tool.function.parameters or _ANY_OBJECT


def _wrong(error: ValidationError) -> BadRequest:
    found = error.errors(include_url=False, include_input=False)[0]
    message = found["msg"].removeprefix("Value error, ")
    return BadRequest(message, where=".".join(map(str, found["loc"])) or None, remedy="change these options")
