"""One place where text becomes ids: training, prompting and transformers' rendering agree."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from openautoglm.core.errors import TokenizerError
from openautoglm.core.values import Example, Origin, Turn
from openautoglm.text.jinja import chat_template
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer

HERE = Origin("test", 1)
FIXED = Tokenizer.train(["The Punter is a pub near the river"] * 3, 300)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["<|user|>", "[gMASK]<sop>", ""]
)
TURNS = st.lists(
    st.builds(Turn, st.sampled_from(["system", "user", "assistant", "observation"]), TEXT), max_size=4
)
TEMPLATES = st.builds(Template, kind=st.sampled_from(["glm4", "pair"]), system=st.none() | TEXT)


def example(source: str, target: str, *turns: tuple[str, str]) -> Example:
    return Example(source, target, HERE, turns=tuple(Turn(*turn) for turn in turns))


@given(TEMPLATES, st.lists(st.tuples(TEXT, TEXT, TURNS), min_size=1, max_size=3))
def test_the_prompt_is_the_beginning_of_what_is_trained(
    template: Template, rows: list[tuple[str, str, list[Turn]]]
) -> None:
    examples = [Example(source, target, HERE, turns=tuple(turns)) for source, target, turns in rows]
    for one, encoded in zip(examples, template.encode_many(examples, FIXED), strict=True):
        assert template.prompt(one.source, one.turns, FIXED) == encoded.ids[: encoded.prompt_tokens]
        assert template.encode(one, FIXED) == encoded
        answer = encoded.ids[encoded.prompt_tokens :]
        assert answer[-1] in template.stop_ids(FIXED)
        assert not set(answer[:-1]) & set(FIXED.special.values())
        plain = not (one.source or one.turns or template.system is not None)
        reply = one.target.removeprefix("\n") if plain and template.kind == "glm4" else one.target
        assert template.reply(answer[:-1], FIXED) == reply


def test_the_released_form(tokenizer: Tokenizer) -> None:
    encoded = Template(kind="glm4", system="Be kind.").encode(
        example("Why?", "Because.", ("user", "Hi"), ("assistant", "Hello"), ("observation", "7")), tokenizer
    )
    assert tokenizer.decode(encoded.ids, skip_special=False) == (
        "[gMASK]<sop><|system|>\nBe kind.<|user|>\nHi<|assistant|>\nHello<|observation|>\n7"
        "<|user|>\nWhy?<|assistant|>\nBecause.<|user|>"
    )
    assert tokenizer.decode(encoded.ids[encoded.prompt_tokens :], skip_special=False) == "\nBecause.<|user|>"
    special = tokenizer.special
    stops = Template(kind="glm4").stop_ids(tokenizer)
    assert stops == (special["<|endoftext|>"], special["<|user|>"], special["<|observation|>"])


def test_the_compact_form(tokenizer: Tokenizer) -> None:
    template = Template(kind="pair")
    encoded = template.encode(example("a | b", "A and B."), tokenizer)
    assert tokenizer.decode(encoded.ids, skip_special=False) == "<sop>a | b<|assistant|>A and B.<|endoftext|>"
    assert template.stop_ids(tokenizer) == (tokenizer.special["<|endoftext|>"],)
    longer = template.encode(example("c", "C.", ("user", "a | b"), ("assistant", "A and B.")), tokenizer)
    assert longer.ids[: len(encoded.ids)] == encoded.ids, "a conversation grows by appending"


@pytest.mark.parametrize(("kind", "head"), [("glm4", "[gMASK]<sop>"), ("pair", "<sop>")])
def test_plain_text_has_a_head_and_an_end(tokenizer: Tokenizer, kind: str, head: str) -> None:
    encoded = Template.model_validate({"kind": kind}).encode(example("", "to be"), tokenizer)
    assert tokenizer.decode(encoded.ids, skip_special=False) == f"{head}to be<|endoftext|>"
    assert encoded.prompt_tokens == len(head.split("]")) if kind == "glm4" else 1


def test_a_released_tokenizer_does_not_double_the_head(released: Path) -> None:
    tokenizer = Tokenizer.load(released)
    encoded = Template(kind="glm4").encode(example("Why?", "Because."), tokenizer)
    for token in ("[gMASK]", "<sop>"):
        assert encoded.ids.count(tokenizer.special[token]) == 1
    assert len(encoded.ids) > 8, "the file's truncation is off"


def test_an_own_system_turn_takes_the_place_of_the_templates(tokenizer: Tokenizer) -> None:
    ids = Template(kind="glm4", system="A").prompt("x", [Turn("system", "B")], tokenizer)
    assert tokenizer.decode(ids, skip_special=False) == "[gMASK]<sop><|system|>\nB<|user|>\nx<|assistant|>"


def test_an_unknown_role_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match="'tool'"):
        Template().prompt("x", [Turn("tool", "y")], tokenizer)


CONVERSATIONS = [
    ("Why?", []),
    ("", []),
    ("", [Turn("user", "a"), Turn("assistant", "b")]),
    ("Why?", [Turn("user", "a"), Turn("assistant", "b")]),
    ("Why?", [Turn("system", "S"), Turn("user", "a\n"), Turn("assistant", " b ")]),
    ("关关 {{ x }}", [Turn("assistant", "b"), Turn("observation", "{% y %}")]),
]


@pytest.mark.parametrize("kind", ["glm4", "pair"])
@pytest.mark.parametrize("system", [None, 'Be "kind"\n{{ x }} 关 \\n'])
def test_transformers_renders_the_same_ids(
    tokenizer: Tokenizer, tmp_path: Path, kind: str, system: str | None
) -> None:
    template = Template.model_validate({"kind": kind, "system": system})
    tokenizer.save(tmp_path, chat_template=chat_template(template))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for source, turns in CONVERSATIONS:
        messages = [{"role": turn.role, "content": turn.text} for turn in (*turns, Turn("user", source))]
        ids = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert ids == template.prompt(source, turns, tokenizer), (source, turns)


@pytest.mark.parametrize("kind", ["glm4", "pair"])
def test_an_answer_to_a_tool_follows_its_result_without_an_empty_user_turn(kind):
    tokenizer = Tokenizer.train(["weather in Rome"] * 20, 300)
    turns = (Turn("user", "weather in Rome?"), Turn("observation", "sunny"))
    ids = Template(kind=kind).prompt("", turns, tokenizer)
    users = tokenizer.special["<|user|>"]
    assert ids.count(users) == (1 if kind == "glm4" else 0)
    assert ids[-1] == tokenizer.special["<|assistant|>"]
    assert tokenizer.decode(ids[:-1]).endswith("sunny")
