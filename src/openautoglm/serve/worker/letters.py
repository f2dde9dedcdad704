"""Orders as messages, and back."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

from openautoglm.engine.request import Decoding
from openautoglm.serve.faults import BadRequest
from openautoglm.serve.orders import Facts, GrammarText, Order
from openautoglm.serve.worker.frames import ProtocolError
from openautoglm.serve.worker.messages import Ask, Embed, Hello

_TEXTS, _IDS = 32, 1 << 20


def facts_of(hello: Hello) -> Facts:
    """What an engine serves with."""
    return Facts(**vars(hello))


def ids_of(ids: Sequence[int]) -> bytes:
    """Ids as int32.

    Raises:
        BadRequest: some are none.
    """
    try:
        return array("i", ids).tobytes()
    except (TypeError, OverflowError) as error:
        raise BadRequest("holds what are no ids", where="prompt", remedy="give integers") from error


def texts_of(number: int, prompts: Sequence[Sequence[int]]) -> Embed:
    """The message that carries texts whose hidden states are wanted.

    Raises:
        BadRequest: they are outside all bounds.
    """
    ids = b"".join(map(ids_of, prompts))
    try:
        return Embed(number, ids, tuple(map(len, prompts)))
    except ProtocolError as error:
        raise BadRequest("is empty or too long", where="input", remedy="give texts that fit the model") from error


def parts_of(prompts: Sequence[Sequence[int]]) -> Iterator[Sequence[Sequence[int]]]:
    """Cut a list of texts into what fits a message."""
    first = ids = 0
    for place, prompt in enumerate(prompts):
        if place > first and (place - first == _TEXTS or ids + len(prompt) > _IDS):
            yield prompts[first:place]
            first, ids = place, 0
        ids += len(prompt)
    yield prompts[first:]


def letter_of(number: int, order: Order) -> Ask:
    """The message that carries an order.

    Raises:
        BadRequest: the order is outside all bounds.
    """
    grammar = (order.grammar.kind, order.grammar.text) if order.grammar is not None else None
    try:
        return Ask(number, ids_of(order.prompt), order.decoding.model_dump_json(exclude_defaults=True), order.priority,
                   order.timeout_s, grammar, order.stops, order.salt, order.id)
    except ProtocolError as error:
        raise BadRequest("is outside the bounds of an order", where=error.message.rpartition(" ")[2],
                         remedy="make it smaller") from error


def order_of(message: Ask) -> Order:
    """The order that a message carries.

    Raises:
        BadRequest: its decoding is none.
    """
    prompt = array("i", message.prompt)
    try:
        decoding = Decoding.model_validate_json(message.decoding)
    except ValueError as error:
        raise BadRequest("is no set of options", where="decoding", remedy="see the options of Decoding") from error
    grammar = GrammarText(*message.grammar) if message.grammar is not None else None
    return Order(tuple(prompt), decoding, message.priority, message.timeout_s, grammar, message.stops, message.salt,
                 message.id)
