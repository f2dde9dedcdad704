"""Prompts: the same ids as in training and on the command line; what is too long is cut where that is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from openautoglm.core.values import Example, Origin, Turn
from openautoglm.data.records import Reader
from openautoglm.serve.faults import BadRequest, TooLong
from openautoglm.serve.service.language import Language
from openautoglm.serve.service.prompts import Prompt, Prompts
from openautoglm.serve.wire.asks import ChatAsk, CompletionAsk, TokenizeAsk
from openautoglm.serve.wire.json_body import parse_object
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer

ROOM = 10_000


def of(language: Language, prompt: Any, **more: Any) -> Prompt:
    room = more.pop("room", ROOM)
    ask = CompletionAsk.model_validate({"model": "m", "prompt": prompt, **more})
    return Prompts(language).of_completion(ask, room)[0]


def chat(language: Language, *messages: tuple[str, str], room: int = ROOM, **more: Any) -> Prompt:
    ask = ChatAsk.model_validate({"model": "m", "messages": [{"role": role, "content": text}
                                                             for role, text in messages], **more})
    return Prompts(language).of_chat(ask, room)


@pytest.fixture(params=["pair", "glm4"])
def speaking(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Language:
    """Both forms of prompts, with a system text of the template's own."""
    return Language(Template(kind=request.param, system="Be brief."), tokenizer)


def test_a_record_is_rendered_as_in_training(language: Language) -> None:
    body = parse_object(b'{"model": "m", "prompt": {"price": 1.50, "name": "The Punter"}}', 8)
    ask = CompletionAsk.model_validate(body)
    trained = Example("The Punter | 1.50", "A pub.", Origin("train.jsonl", 1))
    encoded = language.template.encode(trained, language.tokenizer)
    made = Prompts(language).of_completion(ask, ROOM)[0]
    assert list(made.ids) == encoded.ids[:encoded.prompt_tokens]
    assert made.question is not None
    assert made.question.fields == (("name", "The Punter"), ("price", "1.50"))


def test_texts_and_conversations_are_those_of_the_command_line(speaking: Language) -> None:
    template, tokenizer = speaking.template, speaking.tokenizer
    question = Reader(None).question("Where?")
    assert of(speaking, "Where?").ids == tuple(template.prompt(question.source, question.turns, tokenizer))
    turns = (Turn("system", "Rhyme."), Turn("user", "Hi"), Turn("assistant", "Hello"))
    assert chat(speaking, ("developer", "Rhyme."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Go on")).ids == \
        tuple(template.prompt("Go on", turns, tokenizer))
    results = (Turn("user", "Sum?"), Turn("assistant", "add\n{}"), Turn("observation", "3"))
    ask = ChatAsk.model_validate({"model": "m", "messages": [
        {"role": "user", "content": "Sum?"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}]},
        {"role": "tool", "content": "3", "tool_call_id": "1"}]})
    assert Prompts(speaking).of_chat(ask, ROOM).ids == tuple(template.prompt("", results, tokenizer))


def test_raw_text_and_ids_stay_as_they_are(speaking: Language) -> None:
    head = Template(kind=speaking.template.kind).prompt("", (), speaking.tokenizer)
    assert of(speaking, "The Pun", raw=True).ids == (*head, *speaking.tokenizer.encode("The Pun"))
    assert of(speaking, [5, 6, 7]).ids == (5, 6, 7)
    running = Language(speaking.template, speaking.tokenizer, {"record": {"text": "text"}})
    assert of(running, "The Pun").ids == of(speaking, "The Pun", raw=True).ids
    assert of(running, "The Pun", raw=False).ids == of(speaking, "The Pun").ids


@pytest.mark.parametrize(("prompt", "why"), [
    ({"name": "x", "cost": 1}, "missing_column"), ({"name": "x", "price": {"a": 1}}, "not_text"),
    ({"name": "x\0", "price": "1"}, "NUL"),
], ids=["column", "kind", "nul"])
def test_a_record_that_does_not_fit_is_told(language: Language, prompt: Any, why: str) -> None:
    with pytest.raises(BadRequest, match=why) as caught:
        of(language, prompt)
    assert caught.value.field == "prompt"


def test_a_conversation_must_leave_something_to_answer(language: Language) -> None:
    for messages in ([("user", "a"), ("assistant", "b")], [("system", "a")]):
        with pytest.raises(BadRequest, match="last message") as caught:
            chat(language, *messages)
        assert caught.value.field == "messages"


TALK = (("system", "Be brief."), ("user", "one " * 6), ("assistant", "two " * 6), ("user", "three " * 6),
        ("assistant", "four " * 6), ("user", "five"))


def test_the_oldest_turns_are_left_out_and_counted(speaking: Language) -> None:
    whole = chat(speaking, *TALK)
    first_out = chat(speaking, TALK[0], *TALK[3:])
    both_out = chat(speaking, TALK[0], TALK[5])
    assert len(whole.ids) > len(first_out.ids) > len(both_out.ids)
    assert chat(speaking, *TALK, room=len(whole.ids), truncate="turns").dropped_messages == 0
    for room, left, dropped in ((len(whole.ids) - 1, first_out, 2), (len(first_out.ids), first_out, 2),
                                (len(first_out.ids) - 1, both_out, 4), (len(both_out.ids), both_out, 4)):
        cut = chat(speaking, *TALK, room=room, truncate="turns")
        assert cut.ids == left.ids
        assert (cut.dropped_messages, cut.dropped_tokens) == (dropped, len(whole.ids) - len(left.ids))
    with pytest.raises(TooLong, match="without its oldest turns") as caught:
        chat(speaking, *TALK, room=len(both_out.ids) - 1, truncate="turns")
    assert caught.value.field == "messages"
    assert chat(speaking, *TALK, room=5).ids == whole.ids  # not asked for, nothing is cut


def test_a_tools_result_keeps_its_call(speaking: Language) -> None:
    talk = (*TALK[:3], ("user", "sum"), ("assistant", "add"), ("tool", "3"), ("tool", "4"))
    kept = chat(speaking, TALK[0], ("assistant", "add"), ("tool", "3"), ("tool", "4"))
    assert chat(speaking, *talk, room=len(kept.ids), truncate="turns").ids == kept.ids


def test_a_window_keeps_the_end_of_a_text(speaking: Language) -> None:
    text = "关关雎鸠 " * 30 + "The end."
    whole = of(speaking, text)
    for room in range(len(whole.ids) - 40, len(whole.ids), 7):
        cut = of(speaking, text, room=room, truncate="window")
        assert room - 8 <= len(cut.ids) <= room
        assert cut.dropped_tokens == len(whole.ids) - len(cut.ids)
        said = speaking.tokenizer.decode(cut.ids)
        assert "The end." in said
        assert "\ufffd" not in said
        assert cut.ids[:2] == whole.ids[:2]
    ids = tuple(range(10, 30))
    assert of(speaking, list(ids), room=8, truncate="window").ids == ids[-8:]
    head = len(of(speaking, "", raw=True).ids)
    raw = of(speaking, text, raw=True, room=20, truncate="window")
    assert raw.ids == (*whole.ids[:head], *of(speaking, text, raw=True).ids[head - 20:])
    with pytest.raises(TooLong):
        of(speaking, text, room=1, truncate="window")


def test_tokenize(speaking: Language) -> None:
    prompts, tokenizer = Prompts(speaking), speaking.tokenizer
    assert prompts.of_tokenize(TokenizeAsk(prompt="The Pun", add_special_tokens=False)) == tokenizer.encode("The Pun")
    assert prompts.of_tokenize(TokenizeAsk(prompt="The Pun")) == list(of(speaking, "The Pun").ids)
    ask = TokenizeAsk.model_validate({"messages": [{"role": "user", "content": "Hi"}]})
    assert prompts.of_tokenize(ask) == list(chat(speaking, ("user", "Hi")).ids)
    assert prompts.of_text("Hi") == of(speaking, "Hi", raw=True).ids
    assert prompts.of_text((1, 2)) == (1, 2)
