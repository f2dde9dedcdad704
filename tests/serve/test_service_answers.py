"""Answers: text, ends, counts and times of what a backend gives, and what happens when it goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest
from serve_tools import run
from service_tools import Scene, ask, spoken

from openautoglm.engine.request import Piece
from openautoglm.serve.backend import Order
from openautoglm.serve.faults import BadRequest, EngineLost, Fault, TimedOut, TooLong, Unsupported
from openautoglm.serve.service.language import Language
from openautoglm.serve.service.values import Caller
from openautoglm.serve.wire.asks import DetokenizeAsk, EmbeddingAsk, TokenizeAsk
from openautoglm.serve.wire.messages import Message
from openautoglm.text.template import Template


def scene(language: Language, *texts: str, finish: str = "stop", fault: Exception | None = None, **more: Any) -> Scene:
    return Scene(language, lambda order: (spoken(language, *texts, finish=finish), fault), **more)


def test_text_end_and_counts(language: Language) -> None:
    async def work() -> None:
        made = scene(language, "A cheap pub.")
        deltas = await made.deltas(caller=Caller("key", "id-1", b"salt"), max_tokens=20)
        assert "".join(delta.text for delta in deltas) == "A cheap pub."
        assert [delta.finish for delta in deltas] == [None] * (len(deltas) - 1) + ["stop"]
        order = made.backend.orders[0]
        assert order.prompt == tuple(language.template.prompt("x", (), language.tokenizer))
        assert (order.salt, order.id, order.decoding.max_new_tokens) == (b"salt", "id-1", 20)
        usage = made.report.usage
        assert (usage.prompt_tokens, usage.completion_tokens) == (len(order.prompt), len(deltas))
        assert made.report.finishes == ["stop"]
        assert made.report.fault is None
        assert made.report.caller.name == "key"
        assert len(made.observer.firsts) == 1
        assert len(made.observer.gaps) == len(deltas) - 1
        assert made.service.queue.present == made.service.queue.waiting == 0

    run(work())


def test_several_answers_to_several_prompts(language: Language) -> None:
    async def work() -> None:
        made = scene(language, "one", "two", finish="length")
        assert await made.texts(prompt=["x", "y"], n=2, temperature=1.0) == {0: "one", 1: "two", 2: "one", 3: "two"}
        assert [order.decoding.n for order in made.backend.orders] == [2, 2]
        assert sorted(made.report.finishes) == ["length"] * 4
        greedy = scene(language, "one")
        assert await greedy.texts(n=3) == {0: "one", 1: "one", 2: "one"}
        assert greedy.backend.orders[0].decoding.n == 1
        ids = len(language.tokenizer.encode("one"))
        assert greedy.report.usage.completion_tokens == 3 * ids
        assert greedy.report.finishes == ["stop"] * 3

    run(work())


def test_a_stop_string_ends_an_answer_and_is_not_shown(language: Language) -> None:
    async def work() -> None:
        made = scene(language, "A cheap pub near Café", finish="length")
        deltas = await made.deltas(stop=[" near", "zzz"])
        assert "".join(delta.text for delta in deltas) == "A cheap pub"
        assert deltas[-1].finish == "stop"
        assert made.backend.orders[0].stops == (" near", "zzz")
        assert made.backend.left == 1  # the rest is not waited for

    run(work())


def test_the_forms_beginning_is_put_before_what_must_follow_a_form(language: Language) -> None:
    glm4 = Language(Template(kind="glm4"), language.tokenizer)
    opening = tuple(language.tokenizer.encode("\n"))

    async def work() -> None:
        plain = scene(glm4, "\nYes")
        assert await plain.texts() == {0: "Yes"}
        prompt = plain.backend.orders[0].prompt
        for fields in ({"stop": "\n"}, {"logprobs": 1}, {"response_format": {"type": "json_object"}}):
            made = scene(glm4, "Yes")
            assert await made.texts(**fields) == {0: "Yes"}
            assert made.backend.orders[0].prompt == prompt + opening
        raw = scene(glm4, "\nYes")
        assert await raw.texts(raw=True) == {0: "\nYes"}

    run(work())


def test_log_probabilities(language: Language) -> None:
    tokens = language.tokenizer.encode("Café")
    pieces = [Piece(0, (token,), (-0.5 - number,), (((token, -0.5 - number), (11, -3.0)),))
              for number, token in enumerate(tokens)]
    end = Piece(0, (), (-0.1,), (((1, -0.1),),), "stop")

    async def work() -> None:
        made = Scene(language, lambda order: ([*pieces, end], None))
        deltas = await made.deltas(logprobs=2)
        told = [item for delta in deltas for item in delta.logprobs]
        assert [item.logprob for item in told] == [-0.5 - number for number in range(len(tokens))]
        assert b"".join(item.raw for item in told).decode() == "Café" == "".join(delta.text for delta in deltas)
        assert all(item.top[0][0] == item.text for item in told)

    run(work())


def test_the_cards_choice_among_several_texts(language: Language) -> None:
    card = {**language.recipe, "decoding": {"num_beams": 3, "n": 3, "choose": "coverage"}}
    chooser = Language(language.template, language.tokenizer, card)

    async def work() -> None:
        made = scene(chooser, "A pub.", "The Punter is cheap.", "The Punter.")
        deltas = await made.deltas(prompt={"name": "The Punter", "price": "cheap"})
        assert [(delta.choice, delta.text, delta.finish) for delta in deltas] == [(0, "The Punter is cheap.", "stop")]
        streamed = scene(chooser, "A pub.")
        assert await streamed.texts(prompt={"name": "The Punter", "price": "cheap"}, stream=True) == {0: "A pub."}
        assert streamed.backend.orders[0].decoding.num_beams == 1

    run(work())


def test_the_call_of_a_function(language: Language) -> None:
    tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}

    async def work() -> None:
        made = scene(language, '{"a": 1}')
        answering = await made.service.open(ask(messages=[{"role": "user", "content": "x"}], tools=[tool],
                                                tool_choice="required"))
        assert answering.tool == "find"
        async with aclosing(answering.stream()) as deltas:
            found = [delta async for delta in deltas]
        assert found[-1].finish == "tool_calls"
        grammar = made.backend.orders[0].grammar
        assert grammar is not None
        assert grammar.kind == "json_schema"

    run(work())


@pytest.mark.parametrize(("pieces", "fault", "expected"), [
    ([], EngineLost("gone"), EngineLost), ([Piece(0, (40,))], EngineLost("gone"), EngineLost),
    ([Piece(0, (40,)), Piece(0, (), finish="error")], EngineLost("gone"), EngineLost), ([], None, EngineLost),
    ([Piece(0, (40,)), Piece(0, (), finish="deadline")], None, TimedOut),
    ([], BadRequest("no", where="grammar"), BadRequest),
], ids=["at-once", "under-way", "told", "no-end", "deadline", "refused"])
def test_a_fault_is_told_and_the_place_is_free(language: Language, pieces: Sequence[Piece], fault: Fault | None,
                                               expected: type[Fault]) -> None:
    async def work() -> None:
        made = Scene(language, lambda order: (pieces, fault))
        for prompts in ("x", ["x", "y"]):
            with pytest.raises(expected):
                await made.deltas(prompt=prompts)
            assert made.report.fault == expected.kind
            assert made.service.queue.present == made.service.queue.waiting == made.service.queue.waiting_tokens == 0
        assert made.backend.left == len(made.backend.orders)

    run(work())


def test_leaving_cancels_and_frees_the_place(language: Language) -> None:
    async def work() -> None:
        made = Scene(language, lambda order: ([Piece(0, (40,))], None))
        made.backend.gate = asyncio.Event()
        for prompts in ("x", ["x", "y"]):
            answering = await made.service.open(ask(prompt=prompts))
            stream = answering.stream()
            await anext(stream)
            assert made.service.queue.present == len(prompts)
            await stream.aclose()
            assert made.report.fault == "client_gone"
            assert made.service.queue.present == made.service.queue.waiting == 0
            assert made.backend.left == len(made.backend.orders)
        never = await made.service.open(ask())
        assert made.service.queue.waiting == 1
        never.cancel()
        never.cancel()
        assert made.service.queue.present == made.service.queue.waiting == 0
        assert len(made.observer.reports) == 3

    run(work())


def test_a_fault_of_our_own_is_counted_as_one(language: Language) -> None:
    async def work() -> None:
        made = Scene(language, lambda order: ([], ZeroDivisionError()))
        with pytest.raises(ZeroDivisionError):
            await made.deltas()
        assert made.report.fault == "internal"
        assert made.service.queue.present == 0

    run(work())


def test_prompts_that_cannot_be_served(language: Language) -> None:
    async def work() -> None:
        made = scene(language, "x")
        with pytest.raises(TooLong) as caught:
            await made.deltas(prompt="word " * 200)
        assert caught.value.field == "prompt"
        with pytest.raises(TooLong, match="lower max_tokens"):
            await made.deltas(max_tokens=127)
        with pytest.raises(BadRequest, match="the id 9999"):
            await made.deltas(prompt=[9999])
        assert made.backend.orders == []
        assert [report.fault for report in made.observer.reports] == ["too_long", "too_long", "bad_request"]

    run(work())


def test_a_long_conversation_is_cut_where_asked_for(language: Language) -> None:
    talk = [{"role": "user", "content": "word " * 30}, {"role": "assistant", "content": "word " * 30}] * 2
    talk.append({"role": "user", "content": "last"})

    async def work() -> None:
        made = scene(language, "ok", facts={"max_tokens": 200})
        await made.deltas(messages=talk, max_tokens=20, truncate="turns")
        usage = made.report.usage
        assert len(made.backend.orders[0].prompt) + 20 <= 200
        assert usage.dropped_messages in (2, 4)
        assert usage.as_json()["dropped"] == {"messages": usage.dropped_messages, "tokens": usage.dropped_tokens}
        assert usage.dropped_tokens > 30

    run(work())


class Kept:
    """Conversations in memory."""

    def __init__(self) -> None:
        self.messages: dict[tuple[str, str], list[Message]] = {}

    async def recall(self, name: str, owner: str) -> Sequence[Message]:
        return list(self.messages.get((name, owner), []))

    async def remember(self, name: str, owner: str, known: int, messages: Sequence[Message]) -> None:
        mine = self.messages.setdefault((name, owner), [])
        assert len(mine) == known
        mine.extend(messages)


def test_a_conversation_that_the_server_keeps(language: Language) -> None:
    async def work() -> None:
        kept = Kept()
        made = scene(language, "Hello.", conversations=kept)
        for word in ("one", "two"):
            await made.deltas(caller=Caller("ann"), messages=[{"role": "user", "content": word}], conversation="c")
        await made.deltas(caller=Caller("bob"), messages=[{"role": "user", "content": "three"}], conversation="c")
        said = [(message.role, message.content) for message in kept.messages["c", "ann"]]
        assert said == [("user", "one"), ("assistant", "Hello."), ("user", "two"), ("assistant", "Hello.")]
        prompts = [len(order.prompt) for order in made.backend.orders]
        assert prompts[1] > prompts[0]
        assert prompts[2] <= prompts[0] + 4
        without = scene(language, "Hello.")
        with pytest.raises(Unsupported, match="keeps no conversations"):
            await without.deltas(messages=[{"role": "user", "content": "x"}], conversation="c")

    run(work())


def test_embeddings_and_tokens(language: Language) -> None:
    async def work() -> None:
        made = Scene(language, lambda order: ([], None))
        vectors, usage = await made.service.embed(EmbeddingAsk(model="m", input=["one", [5, 6]]))
        assert vectors.shape == (2, 2)
        assert usage.prompt_tokens == 2 + 1 + len(language.tokenizer.encode("one"))
        assert (made.report.kind, made.report.fault) == ("embedding", None)
        with pytest.raises(Unsupported, match="2 dimensions"):
            await made.service.embed(EmbeddingAsk(model="m", input=["one"], dimensions=3))
        assert made.report.fault == "unsupported"
        with pytest.raises(BadRequest):
            await made.service.embed(EmbeddingAsk(model="m", input=[[9999]]))
        assert made.service.queue.present == 0
        ids = await made.service.tokenize(TokenizeAsk(prompt="The Punter", add_special_tokens=False))
        assert await made.service.detokenize(DetokenizeAsk(tokens=ids)) == "The Punter"
        with pytest.raises(BadRequest):
            await made.service.detokenize(DetokenizeAsk(tokens=[9999]))

    run(work())


def test_the_time_in_the_queue_is_the_backends(language: Language) -> None:
    async def work() -> None:
        made = Scene(language, lambda order: ([Piece(0, (40,), queued_s=0.25), Piece(0, (41,), finish="stop")], None))
        await made.deltas()
        report = made.report
        assert report.begun is not None
        assert report.first is not None
        assert report.last is not None
        assert 0.25 <= report.begun - report.arrived < 1
        assert report.arrived < report.first <= report.last <= report.ended

    run(work())


def test_the_deadline_is_the_clients_or_the_servers(language: Language) -> None:
    async def work() -> None:
        made = scene(language, "x", settings={"limits": {"timeout_s": 50}})
        await made.deltas()
        await made.deltas(timeout_s=3)
        bounds: list[Order] = made.backend.orders
        assert [round(order.timeout_s or 0) for order in bounds] == [50, 3]

    run(work())
