"""Rows become examples: templates, fields, conversations, settings that do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from openautoglm.core.values import Example, Reject, Turn
from openautoglm.data.settings import DataSettings

ReadBytes = Callable[..., list[Example | Reject]]


def test_a_record_template_makes_source_and_fields(read_bytes: ReadBytes) -> None:
    items = read_bytes(b"name,food,b\nAda,,x\nBo,{b},y\n", template="{name}: {{{food}}}", target="b")
    assert [(item.source, item.fields) for item in items] == [
        ("Ada: {}", (("name", "Ada"),)), ("Bo: {{b}}", (("name", "Bo"), ("food", "{b}")))]


def test_fields_by_columns_and_by_expression(read_bytes: ReadBytes) -> None:
    assert read_bytes(b"a,b,c\n1,x,z\n", source="a", target="b", fields=["c"])[0].fields == (("c", "z"),)
    item = read_bytes(b'a,b\n"name[The Vaults], near[]",x\n', fields=r"([\w ]+)\[([^\]]*)\]")[0]
    assert item.fields == (("name", "The Vaults"), ("near", ""))


def chat(*turns: tuple[str, Any], **more: Any) -> bytes:
    return json.dumps({"messages": [{"role": role, "content": text, **more} for role,
                                    text in turns]}).encode()


def test_the_last_assistant_turn_is_the_target(read_bytes: ReadBytes) -> None:
    content = chat(("system", "be brief"), ("user", "q1"), ("assistant", "a1"),
                   ("user", [{"type": "text", "text": "q"}, {"type": "text", "text": "2"}]),
                   ("assistant", "a2"),
                   ("user", "bye"))
    item = read_bytes(content, "f.jsonl", messages=True)[0]
    assert (item.source, item.target) == ("q2", "a2")
    assert item.turns == (Turn("system", "be brief"), Turn("user", "q1"), Turn("assistant", "a1"))


def test_a_tool_result_before_the_target_stays_a_turn(read_bytes: ReadBytes) -> None:
    call = {"role": "assistant", "content": None,
            "tool_calls": [{"function": {"name": "sum", "arguments": '{"x": 1}'}}]}
    rows = {"messages": [{"role": "user", "content": "q"}, call, {"role": "tool", "content": "2"},
                         {"role": "assistant", "content": "two"}]}
    item = read_bytes(json.dumps(rows).encode(), "f.jsonl", messages="messages")[0]
    assert (item.source, item.target) == ("", "two")
    assert item.turns == (Turn("user", "q"), Turn("assistant", 'sum\n{"x": 1}'), Turn("observation", "2"))


@pytest.mark.parametrize(("row", "reason"), [
    (b'{"other": 1}', "missing_column"), (b'{"messages": null}', "not_messages"),
    (b'{"messages": []}', "not_messages"), (b'{"messages": "[1"}', "invalid_json"),
    (b'{"messages": [1]}', "not_messages"), (b'{"messages": [{"role": "king"}]}', "unknown_role"),
    (b'{"messages": [{"role": ["user"]}]}', "unknown_role"), (chat(("user", "q")), "no_assistant_turn"),
    (chat(("assistant", "a")), "no_prompt"), (chat(("user", "q"), ("assistant", " ")), "empty"),
    (chat(("user", 5), ("assistant", "a")), "not_text"),
    (chat(("user", "\0"), ("assistant", "a")), "nul_byte"),
    (chat(("user", [{"type": "image_url"}]), ("assistant", "a")), "not_text"),
    (chat(("user", "q"), ("assistant", "a"), tool_calls=[{"function": None}]), "not_text"),
])
def test_conversations_that_teach_nothing(read_bytes: ReadBytes, row: bytes, reason: str) -> None:
    item = read_bytes(row, "f.jsonl", messages=True)[0]
    assert isinstance(item, Reject)
    assert item.reason == reason
    assert item.raw == row.decode()


@pytest.mark.parametrize(("options", "message"), [
    ({}, "exactly one of"), ({"source": "a"}, "target is needed"), ({"target": "b"}, "exactly one of"),
    ({"source": "a", "template": "{a}", "target": "b"}, "exclude each other"),
    ({"text": "a", "messages": "m"}, "exactly one of"),
    ({"template": "{a.__class__!r}", "target": "b"}, "plain"),
    ({"template": "{a:>99999999}", "target": "b"}, "plain"), ({"template": "{}", "target": "b"}, "plain"),
    ({"template": "{a", "target": "b"}, "expected '}'"), ({"template": "text", "target": "b"}, "no column"),
    ({"text": "a", "encoding": "rot13"}, "not a text encoding"),
    ({"text": "a", "encoding": "utf8x"}, "encoding"),
    ({"text": "a", "encoding": "idna"}, "encoding"), ({"text": "a", "fields": "(a"}, "regular expression"),
    ({"text": "a", "fields": "(a)"}, "two groups"), ({"text": "a", "delimiter": ",,"}, "one character"),
    ({"text": "a", "max_reject_ratio": 2}, "less than or equal"), ({"text": "a", "train": []}, "no file"),
])
def test_settings_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataSettings(**{"train": "f.csv", **options})


def test_attributes_are_never_looked_up(read_bytes: ReadBytes) -> None:
    with pytest.raises(Exception, match=r"no column 'a\.__class__'"):
        read_bytes(b"a,b\n1,x\n", template="{a.__class__}", target="b")


def test_text_files_need_no_shape() -> None:
    assert DataSettings(train=["a.txt", "b.txt.gz"]).text == "text"
    assert DataSettings(train="f.dat", format="text").text == "text"
    assert DataSettings(train="f.csv", text=True).needed_columns() == ("text",)


def test_every_setting_is_described() -> None:
    for name, field in DataSettings.model_fields.items():
        assert len(field.description or "") > 20, name
