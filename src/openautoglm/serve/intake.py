"""Where orders become requests of the engine: grammars are compiled, stop strings watched, the impossible refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from openautoglm.core.errors import AutoGLMError, GenerationError, MissingExtraError, ResourceError
from openautoglm.engine.engine import Engine
from openautoglm.engine.grammar import GrammarCompiler
from openautoglm.engine.grammar_check import Grammar, GrammarLimits
from openautoglm.engine.intake import refusal
from openautoglm.engine.request import GrammarState, Request
from openautoglm.engine.text_stream import Decode, stop_watcher
from openautoglm.serve.faults import BadRequest, EngineLost, Fault, Overloaded, TooLong, Unsupported
from openautoglm.serve.orders import GrammarText, Order


class Intake:
    """Makes requests for one engine. `prepare` may be called in any thread.

    Args:
        decode: gives the text of ids; without it there are no stop strings.
        compiler: of grammars; without it there are none.
    """

    def __init__(self, engine: Engine, decode: Decode | None = None, compiler: GrammarCompiler | None = None) -> None:
        self._limits, self._stops = engine.limits, engine.stops
        self._decode, self._compiler = decode, compiler
        self._grammar_limits = compiler.limits if compiler is not None else GrammarLimits()

    def prepare(self, order: Order, now: float) -> Request:
        """Make a request of an order that came at `now` on the engine's clock. Blocks where a grammar is compiled.

        Raises:
            BadRequest, TooLong, Unsupported: it can never be served.
            Overloaded: too many grammars wait.
        """
        if order.stops and self._decode is None:
            raise Unsupported("this model has no tokenizer, so stop strings cannot be watched", where="stop")
        request = Request(
            order.prompt, order.decoding, order.priority,
            None if order.timeout_s is None else now + order.timeout_s,
            watch=stop_watcher(self._decode, order.stops) if order.stops and self._decode is not None else None,
            salt=order.salt)
        why = refusal(request, self._limits)
        if why is not None:
            long = why.field == "prompt" and len(order.prompt) >= self._limits.positions
            raise (TooLong if long else BadRequest)(why.message, where=why.field, remedy=why.remedy)
        if order.grammar is None:
            return request
        state = self._compile(order.grammar, order)
        return Request(request.prompt, request.decoding, request.priority, request.deadline, state, request.watch,
                       request.salt)

    def check_texts(self, prompts: Sequence[Sequence[int]]) -> None:
        """Refuse texts whose hidden states cannot be computed.

        Raises:
            BadRequest, TooLong: one is empty, too long, or holds foreign ids.
        """
        limits = self._limits
        most = min(limits.positions, limits.pages * limits.page_size)
        for number, ids in enumerate(prompts):
            if not ids:
                raise BadRequest("is empty", where=f"input.{number}", remedy="give at least one id")
            if len(ids) > most:
                raise TooLong(f"has {len(ids)} tokens, the model takes {most}", where=f"input.{number}",
                              remedy="shorten the input")
            if min(ids) < 0 or max(ids) >= limits.embedding:
                raise BadRequest(f"holds ids outside the vocabulary of {limits.embedding}", where=f"input.{number}",
                                 remedy="tokenise with the model's own tokenizer")

    def _compile(self, asked: GrammarText, order: Order) -> GrammarState:
        if self._compiler is None:
            raise Unsupported("this model has no tokenizer, so answers cannot follow a grammar", where="grammar")
        ends = set(order.decoding.stop_ids) | (set() if order.decoding.ignore_stop else self._stops)
        try:
            return self._compiler.compile(grammar_of(asked, self._grammar_limits.schema_bytes), sorted(ends))
        except MissingExtraError as error:
            raise Unsupported(error.message, where="grammar", remedy=error.remedy) from error
        except ResourceError as error:
            raise Overloaded(error.message, where="grammar", remedy="try again later", retry_after_s=1) from error
        except GenerationError as error:
            raise BadRequest(error.message, where=error.where or "grammar", remedy=error.remedy) from error


def grammar_of(asked: GrammarText, most_bytes: int) -> Grammar:
    """Read a grammar.

    Raises:
        BadRequest: it is larger than `most_bytes`, no JSON where JSON is wanted, or of the wrong form.
    """
    if len(asked.text.encode(errors="replace")) > most_bytes:
        raise BadRequest(f"is larger than {most_bytes} bytes", where="grammar", remedy="simplify it")
    try:
        if asked.kind == "json_object":
            return Grammar(json_object=True)
        if asked.kind == "regex":
            return Grammar(regex=asked.text)
        value: Any = json.loads(asked.text)
        return Grammar(json_schema=value) if asked.kind == "json_schema" else Grammar(choice=value)
    except ValidationError as error:
        raise BadRequest(error.errors()[0]["msg"], where="grammar", remedy="see docs/structured-output.md") from error
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"is no JSON: {error}", where="grammar", remedy="send JSON") from error


def told(error: AutoGLMError) -> Fault:
    """The fault that an engine's error is for a client: a request that forbids all tokens is wrong itself, other faults
    are the engine's."""
    if isinstance(error, Fault):
        return error
    if error.where == "model":
        return Unsupported(error.message, where="model", remedy=error.remedy)
    if error.where in ("grammar", "min_tokens"):
        return BadRequest(error.message, where=error.where, remedy=error.remedy)
    fault = EngineLost(str(error), remedy="send the request again", retry_after_s=1)
    fault.__cause__ = error
    return fault
