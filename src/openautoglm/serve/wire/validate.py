"""The one check of what is asked, for REST and gRPC alike: form first, then every bound of the table."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from openautoglm.serve.faults import BadRequest, TooLarge, TooLong, Unsupported
from openautoglm.serve.wire.asks import ChatAsk, CompletionAsk, DetokenizeAsk, EmbeddingAsk, GenerationAsk, TokenizeAsk
from openautoglm.serve.wire.fields import Ask
from openautoglm.serve.wire.limits import Limits

AnAsk = TypeVar("AnAsk", bound=Ask)
_SHOWN = 5


def read_ask(kind: type[AnAsk], content: Mapping[str, Any], limits: Limits) -> AnAsk:
    """Make an ask of what a client sent, and hold it against the bounds.

    Raises:
        BadRequest: a field is missing, unknown, of another kind, or out of bounds; all such fields are named.
        Unsupported: asked for in good form, but not done here.
    """
    try:
        ask = kind.model_validate(content)
    except ValidationError as error:
        raise _told(kind, error) from error
    check(ask, limits)
    return ask


def check(ask: Ask, limits: Limits) -> None:
    """Hold an ask against the bounds.

    Raises:
        BadRequest, Unsupported: as `read_ask`.
    """
    for name in ("model", "user", "conversation", "safety_identifier", "prompt_cache_key"):
        _bound(name, len(getattr(ask, name, None) or ""), limits.name_chars, "characters")
    if isinstance(ask, GenerationAsk):
        _generation(ask, limits)
    if isinstance(ask, CompletionAsk):
        _completion(ask, limits)
    elif isinstance(ask, ChatAsk):
        _chat(ask, limits)
    elif isinstance(ask, EmbeddingAsk):
        _bound("input", len(ask.input), limits.batch, "inputs")
        _items("input", ask.input, limits)
    elif isinstance(ask, TokenizeAsk):
        if (ask.prompt is None) == (ask.messages is None):
            raise BadRequest("there must be either prompt or messages", where="prompt", remedy="give one of them")
        _items("prompt", () if ask.prompt is None else (ask.prompt,), limits)
        _messages(ask.messages or (), limits)
    elif isinstance(ask, DetokenizeAsk):
        _bound("tokens", len(ask.tokens), limits.ids, "ids")


def check_length(prompt_tokens: int, max_tokens: int | None, positions: int, limits: Limits, where: str) -> int:
    """Return how many tokens the answer may have: what is asked for, or what is left.

    Args:
        prompt_tokens: of the prompt.
        max_tokens: asked for; None where the client named no number.
        positions: of the model, for prompt and answer together.
        where: field of the prompt.

    Raises:
        TooLong: the prompt is longer than allowed, or prompt and answer do not fit together.
    """
    if prompt_tokens > limits.prompt_tokens:
        raise TooLong(f"has {prompt_tokens} tokens, {limits.prompt_tokens} are allowed", where=where,
                      remedy="shorten it, or set truncate to turns or window")
    room = positions - prompt_tokens
    if room < 1:
        raise TooLong(f"has {prompt_tokens} tokens, the model takes {positions} for prompt and answer together",
                      where=where, remedy="shorten it, or set truncate to turns or window")
    if max_tokens is not None and max_tokens > room:
        raise TooLong(f"has {prompt_tokens} tokens, which with max_tokens {max_tokens} are more than the model's "
                      f"{positions}", where=where, remedy=f"lower max_tokens to {room}, shorten it, or set truncate")
    return min(room, limits.max_tokens)


def _told(kind: type[Ask], error: ValidationError) -> BadRequest:
    """All faults of a form as one, under the name of the first field."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    told = [_fault(kind, item["type"], ".".join(str(part) for part in item["loc"] if part != "[key]"), item["msg"])
            for item in found]
    field, message, remedy = told[0]
    more = "".join(f"; {name}: {text}" for name, text, _ in told[1:_SHOWN])
    left = len(told) - _SHOWN
    return BadRequest(f"{message}{more}{f'; and {left} more' if left > 0 else ''}", where=field[:200], remedy=remedy)


def _fault(kind: type[Ask], what: str, field: str, message: str) -> tuple[str, str, str]:
    if what == "missing":
        return field, "is missing", "give it"
    if what == "extra_forbidden":
        known = kind.model_fields if "." not in field else ()
        near = difflib.get_close_matches(field, known, n=1)
        return field[:200], "is unknown", f"write {near[0]}, or leave it out" if near else "leave it out"
    text = message.removeprefix("Value error, ").removeprefix("Input should ")
    return field, text if text == message or text[:3] != "be " else f"must {text}", "correct it"


def _bound(name: str, found: int, most: int, what: str) -> None:
    if found > most:
        raise BadRequest(f"has {found} {what}, {most} are allowed", where=name, remedy=f"send at most {most}")


def _most(name: str, value: float | None, most: float) -> None:
    if value is not None and value > most:
        raise BadRequest(f"is {value}, {most} is allowed", where=name, remedy=f"ask for at most {most}")


def _generation(ask: GenerationAsk, limits: Limits) -> None:
    _most("max_tokens", ask.max_tokens, limits.max_tokens)
    _most("min_tokens", ask.min_tokens, limits.max_tokens)
    _most("n", ask.n, limits.n)
    _most("num_beams", ask.num_beams, limits.beams)
    _most("timeout_s", ask.timeout_s, limits.timeout_s)
    stops = ask.stop or ()
    _bound("stop", len(stops), limits.stops, "texts")
    for number, stop in enumerate(stops):
        _bound(f"stop.{number}", len(stop), limits.stop_chars, "characters")
    _bound("stop_token_ids", len(ask.stop_token_ids or ()), limits.stop_ids, "ids")
    _bound("logit_bias", len(ask.logit_bias or ()), limits.logit_bias, "ids")
    _bound("metadata", sum(map(len, (*(ask.metadata or {}), *(ask.metadata or {}).values()))), limits.text_chars,
           "characters")
    if ask.stream_options is not None and not ask.stream:
        raise BadRequest("has a meaning only for an answer that is streamed", where="stream_options",
                         remedy="set stream to true, or leave it out")
    if (ask.num_beams or 1) > 1:
        _beams(ask)
    _forms(ask, limits)


def _beams(ask: GenerationAsk) -> None:
    told: tuple[tuple[str, bool], ...] = (
        ("temperature", bool(ask.temperature)), ("stop", bool(ask.stop)),
        ("logprobs", getattr(ask, "logprobs", None) not in (None, False)))
    for name, given in told:
        if given:
            raise BadRequest("does not go with a beam search", where=name, remedy="leave it out, or set num_beams to 1")
    if (ask.n or 1) > (ask.num_beams or 1):
        raise BadRequest(f"is {ask.n}, but {ask.num_beams} beams give as many answers at most", where="n",
                         remedy="raise num_beams, or lower n")


def _forms(ask: GenerationAsk, limits: Limits) -> None:
    """The form that the answer must have: named once, and not too large."""
    form, more = ask.response_format, ask.structured_outputs
    if form is not None:
        if form.type == "json_schema" and (form.json_schema is None or form.json_schema.schema_ is None):
            raise BadRequest("is missing", where="response_format.json_schema.schema", remedy="give the JSON schema")
        if form.type != "json_schema" and form.json_schema is not None:
            raise BadRequest(f"does not go with the type {form.type}", where="response_format.json_schema",
                             remedy="set the type to json_schema, or leave the schema out")
        if form.json_schema is not None:
            _json_size("response_format.json_schema.schema", form.json_schema.schema_, limits)
    if more is None:
        return
    if form is not None and form.type != "text":
        raise BadRequest("does not go with response_format", where="structured_outputs", remedy="give one of them")
    given = [name for name, value in more if value is not None and value is not False]
    if len(given) != 1:
        raise BadRequest("must have exactly one of json, json_object, regex and choice", where="structured_outputs",
                         remedy="give one of them")
    _json_size("structured_outputs.json", more.json_, limits)
    _bound("structured_outputs.regex", len((more.regex or "").encode()), limits.grammar_bytes, "bytes")
    _bound("structured_outputs.choice", sum(len(text.encode()) for text in more.choice or ()), limits.grammar_bytes,
           "bytes")
    if more.choice is not None and not (more.choice and all(more.choice)):
        raise BadRequest("must hold texts that are not empty", where="structured_outputs.choice",
                         remedy="give at least one text")


def _completion(ask: CompletionAsk, limits: Limits) -> None:
    _bound("prompt", len(ask.prompt), limits.batch, "prompts")
    _items("prompt", ask.prompt, limits)
    _most("logprobs", ask.logprobs, limits.logprobs)
    _answers(len(ask.prompt) * (ask.n or 1), limits)
    if ask.echo:
        raise Unsupported("the prompt is not given back", where="echo", remedy="leave it out, and put the prompt "
                          "before the answer yourself")
    if ask.best_of is not None and ask.best_of != (ask.n or 1):
        raise Unsupported("answers are not ranked", where="best_of", remedy="ask for n answers, and choose")
    if ask.suffix:
        raise Unsupported("text is not filled in before a suffix", where="suffix", remedy="leave it out")


def _chat(ask: ChatAsk, limits: Limits) -> None:
    _messages(ask.messages, limits)
    _answers(ask.n or 1, limits)
    _most("max_completion_tokens", ask.max_completion_tokens, limits.max_tokens)
    _most("top_logprobs", ask.top_logprobs, limits.logprobs)
    if ask.top_logprobs and not ask.logprobs:
        raise BadRequest("has a meaning only with logprobs", where="top_logprobs", remedy="set logprobs to true")
    if None not in (ask.max_tokens, ask.max_completion_tokens) and ask.max_tokens != ask.max_completion_tokens:
        raise BadRequest("differs from max_completion_tokens", where="max_tokens", remedy="give one of them")
    _tools(ask, limits)


def _tools(ask: ChatAsk, limits: Limits) -> None:
    tools, choice = ask.tools or (), ask.tool_choice
    _bound("tools", len(tools), limits.tools, "functions")
    _json_size("tools", [tool.model_dump(mode="json", exclude_none=True) for tool in tools], limits)
    if choice not in (None, "none") and not tools:
        raise BadRequest("there are no tools to choose from", where="tool_choice", remedy="give tools, or leave it out")
    names = [tool.function.name for tool in tools]
    if len(set(names)) < len(names):
        raise BadRequest("two functions have one name", where="tools", remedy="give each a name of its own")
    if choice is not None and not isinstance(choice, str) and choice.function.name not in names:
        raise BadRequest("is not among the tools", where="tool_choice.function.name", remedy="name one of the tools")


def _answers(count: int, limits: Limits) -> None:
    if count > limits.answers:
        raise BadRequest(f"makes {count} answers with the prompts there are, {limits.answers} are allowed", where="n",
                         remedy="lower n, or send fewer prompts at once")


def _messages(messages: Iterable[Any], limits: Limits) -> None:
    known = tuple(messages)
    _bound("messages", len(known), limits.messages, "messages")
    for number, message in enumerate(known):
        _bound(f"messages.{number}.content", len(message.content or ""), limits.text_chars, "characters")


def _items(name: str, items: Iterable[Any], limits: Limits) -> None:
    """Texts, records and lists of ids, each within its bound."""
    sizes: dict[type, Callable[[Any], int]] = {dict: lambda item: len(json.dumps(item, default=str))}
    for item in items:
        most, what = (limits.ids, "ids") if isinstance(item, tuple) else (limits.text_chars, "characters")
        _bound(name, sizes.get(type(item), len)(item), most, what)


def _json_size(name: str, value: Any, limits: Limits) -> None:
    if value is None:
        return
    _bound(name, len(json.dumps(value, separators=(",", ":")).encode()), limits.grammar_bytes, "bytes of JSON")
    level: list[Any] = [value]
    for _ in range(limits.grammar_depth + 1):
        level = [inner for outer in level
                 for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())]
        if not level:
            return
    raise BadRequest(f"is nested more than {limits.grammar_depth} levels deep", where=name,
                     remedy="use $defs and $ref for what repeats")


def check_body(size: int, limits: Limits) -> None:
    """Hold the size of a body against its bound, before anything is parsed.

    Raises:
        TooLarge: it is larger.
    """
    if size > limits.body_bytes:
        raise TooLarge(f"is larger than {limits.body_bytes} bytes", where="body",
                       remedy="send less at once, e.g. fewer prompts")
