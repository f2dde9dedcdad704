"""Text to ids and back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from openautoglm.core.errors import TokenizerError
from openautoglm.text.tokenizer import GLM4_SPECIAL, PAD, SMALLEST_VOCABULARY, Tokenizer

TEXTS = ["the cat sat on the mat and the rat sat on the hat", "红豆生南国，春来发几枝"] * 3
FIXED = Tokenizer.train(TEXTS, 330)
UNICODE = st.text(st.characters(exclude_categories=["Cs"]))
PIECES = st.lists(st.sampled_from([*GLM4_SPECIAL, PAD]) | UNICODE).map("".join)


@given(PIECES)
def test_any_text_comes_back_and_holds_no_special_id(text: str) -> None:
    ids = FIXED.encode(text)
    assert FIXED.decode(ids, skip_special=False) == text
    assert not set(ids) & set(FIXED.special.values())


@given(st.lists(PIECES, max_size=5))
def test_a_batch_gives_what_single_texts_give(texts: list[str]) -> None:
    assert FIXED.encode_batch(texts) == [FIXED.encode(text) for text in texts]


@pytest.mark.data
def test_naughty_strings_and_poems_come_back(shared_data: Path, tokenizer: Tokenizer) -> None:
    texts = json.loads((shared_data / "hostile" / "blns.json").read_text(encoding="utf-8"))
    for file in sorted((shared_data / "chinese-poetry").rglob("*.json")):
        texts.append(file.read_text(encoding="utf-8")[:20_000])
    assert len(texts) > 500
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert tokenizer.decode(ids, skip_special=False) == text
        assert not set(ids) & set(tokenizer.special.values())


def test_the_special_tokens_are_glm4s_in_their_order(tokenizer: Tokenizer) -> None:
    assert tuple(tokenizer.special)[: len(GLM4_SPECIAL)] == GLM4_SPECIAL
    ids = [tokenizer.special[token] for token in GLM4_SPECIAL]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert tokenizer.pad_id == tokenizer.special[PAD] == tokenizer.vocab_size - 1


def test_the_asked_size_is_reached_with_enough_text() -> None:
    assert (
        Tokenizer.train(["".join(chr(97 + i * j % 26) for j in range(40)) for i in range(40)], 300).vocab_size
        == 300
    )


def test_training_is_the_same_in_every_process() -> None:
    program = (
        "import sys; from openautoglm.text.tokenizer import Tokenizer;"
        f"print(Tokenizer.train({TEXTS!r}, 330).fingerprint)"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert other.stdout.strip() == FIXED.fingerprint == Tokenizer.train(iter(TEXTS), 330).fingerprint
    assert Tokenizer.train(TEXTS, 280).fingerprint != FIXED.fingerprint


def test_saved_and_loaded_it_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.encode("The <|user|> Punter") == tokenizer.encode("The <|user|> Punter")


def test_transformers_loads_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = "The Punter, 关关雎鸠 123"
    assert theirs(text)["input_ids"] == tokenizer.encode(text)
    assert theirs.decode(tokenizer.encode(text)) == text
    assert theirs.pad_token_id == tokenizer.pad_id
    assert theirs.eos_token_id == tokenizer.special["<|endoftext|>"]


def test_a_released_tokenizer_adds_no_head_and_cuts_and_pads_nothing(released: Path) -> None:
    tokenizer = Tokenizer.load(released)
    ids = tokenizer.encode("The Punter is a cheap pub near Café Rouge.")
    assert len(ids) > 8
    assert not set(ids) & set(tokenizer.special.values())
    assert tokenizer.decode(ids) == "The Punter is a cheap pub near Café Rouge."


@pytest.mark.parametrize("content", [None, b"{}", b"not json", b"\xff\xfe"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_without_our_marks_is_refused(tmp_path: Path) -> None:
    FIXED.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["added_tokens"] = [
        token for token in content["added_tokens"] if token["content"] != "<|assistant|>"
    ]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"lacks the special tokens <\|assistant\|>"):
        Tokenizer.load(tmp_path)


def test_what_is_not_unicode_is_refused(tokenizer: Tokenizer) -> None:
    for act in (
        lambda: tokenizer.encode("a\ud800"),
        lambda: tokenizer.encode_batch(["fine", "a\ud800"]),
        lambda: Tokenizer.train(["a\ud800"], 300),
    ):
        with pytest.raises(TokenizerError, match="surrogate"):
            act()


def test_a_vocabulary_without_room_for_bytes_is_refused() -> None:
    with pytest.raises(TokenizerError, match=f"at least {SMALLEST_VOCABULARY}"):
        Tokenizer.train(TEXTS, SMALLEST_VOCABULARY - 1)
