"""The edge program's tokenizer gives the ids and the texts of the tokenizers library."""

from __future__ import annotations

import csv
import json
import random
import subprocess
from collections.abc import Callable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest
from edge_models import TEXTS, Model, random_texts
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from openautoglm.core.errors import TokenizerError
from openautoglm.edge.pattern import parse, property_ranges
from openautoglm.edge.tables import tables_of
from openautoglm.text.tokenizer import GLM4_SPECIAL, Tokenizer

Run = Callable[..., subprocess.CompletedProcess[str]]
GLM4 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+")
"""The pattern of GLM-4's own tokenizer."""
POSSESSIVE = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s*[\r\n]"
              r"|\s+(?!\S)|\s")


def backend_of(pattern: str | None, *, size: int = 600, ignore_merges: bool = False) -> Backend:
    """A byte-level BPE with GLM-4's special tokens and others that stand in texts; None: GPT-2's own cutting."""
    backend = Backend(models.BPE(ignore_merges=ignore_merges))
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    backend.pre_tokenizer = cut if pattern is None else pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), cut])
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(TEXTS * 4, trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in GLM4_SPECIAL])
    backend.add_tokens([AddedToken("<think>", normalized=False), AddedToken("<think>x", normalized=True),
                        AddedToken("</think>", normalized=False)])
    return backend


@pytest.fixture
def compare(model: Model, run: Run, tmp_path: Path) -> Callable[[Backend, Sequence[str]], Tokenizer]:
    """Compare ids and, of random ids, texts of a tokenizer with the program's."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("manifest.txt", "weights.safetensors"):
        (folder / name).write_bytes((model.folder / name).read_bytes())
    (folder / "autoglm-edge").symlink_to(model.folder / "autoglm-edge")

    def same(backend: Backend, texts: Sequence[str]) -> Tokenizer:
        tokenizer = Tokenizer(backend)
        backend.save(str(tmp_path / "tokenizer.json"))
        (folder / "tokenizer.bin").write_bytes(tables_of(tmp_path / "tokenizer.json"))
        where = ("--model", str(folder), "--tokens")
        done = run(folder, [json.dumps(text) for text in texts], *where, "encode")
        assert done.returncode == 0, done.stderr
        found = [[int(i) for i in line.split()] for line in done.stdout.split("\n")[:-1]]
        wrong = [text for text, ids, mine in zip(texts, tokenizer.encode_batch(texts), found, strict=True)
                 if ids != mine]
        assert wrong == []
        chance = random.Random(5)
        ids = [[chance.randrange(tokenizer.vocab_size) for _ in range(chance.randrange(1, 30))] for _ in range(300)]
        done = run(folder, [",".join(map(str, row)) for row in ids], *where, "decode")
        assert [json.loads(line) for line in done.stdout.split("\n")[:-1]] == [tokenizer.decode(row) for row in ids]
        return tokenizer

    return same


Compare = Callable[[Backend, Sequence[str]], Tokenizer]
SAMPLES = [*TEXTS, *random_texts(400, seed=1), "", "a" * 3000, " " * 500 + "x", "ab" * 900,
           "<|user|>[gMASK]<sop>", "a<think>b</think><think>xy <think"]


@pytest.mark.parametrize(("pattern", "ignore_merges"), [
    pytest.param(GLM4, False, id="glm4"),
    pytest.param(POSSESSIVE, True, id="possessive, whole words first"),
    pytest.param(None, False, id="gpt2"),
])
def test_ids_and_texts_are_the_librarys(compare: Compare, pattern: str | None, ignore_merges: bool) -> None:
    tokenizer = compare(backend_of(pattern, ignore_merges=ignore_merges), SAMPLES)
    assert len(tokenizer.encode("<think>")) == 1


def test_those_of_our_own_tokenizers_too(compare: Compare) -> None:
    compare(Tokenizer.train(TEXTS * 4, 500)._backend, SAMPLES)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ours", "glm4"])
def test_ten_thousand_real_lines(compare: Compare, shared_data: Path, kind: str) -> None:
    texts = real_lines(shared_data)
    assert len(texts) >= 10_000
    if kind == "ours":
        compare(Tokenizer.train(texts[::4], 3000)._backend, texts)
    else:
        compare(backend_of(GLM4, size=2000), texts)


def real_lines(folder: Path) -> list[str]:
    """Records and texts in English, poems in Chinese, plays, and strings that break programs."""
    with (folder / "e2e-nlg" / "trainset.csv").open(encoding="utf-8", newline="") as file:
        pairs = list(chain.from_iterable((row["mr"], row["ref"]) for row in islice(csv.DictReader(file), 2500)))
    poems = [line for path in sorted((folder / "chinese-poetry").rglob("*.json"))[:40]
             for poem in as_list(json.loads(path.read_text(encoding="utf-8"))) if isinstance(poem, dict)
             for line in as_list(poem.get("paragraphs")) if isinstance(line, str)]
    plays = (folder / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    naughty = json.loads((folder / "hostile" / "blns.json").read_text(encoding="utf-8"))
    return [*pairs, *poems[:3000], *plays[:3000], *naughty]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def test_properties_are_the_librarys_own_unicode() -> None:
    letters = property_ranges(r"\p{L}")
    assert (ord("a"), ord("z") + 1) in letters
    assert property_ranges(r"\s")[0] == (9, 14)
    inside = [code for first, last in property_ranges(r"\p{N}") for code in range(first, last)]
    assert {ord("7"), ord("½"), ord("٣"), 0x1D7D8} <= set(inside)
    assert ord("a") not in inside


@pytest.mark.parametrize(("pattern", "fault"), [
    pytest.param(r"\p{L}*", "may match an empty text", id="empty"),
    pytest.param(r"a+?", "a bound of another kind", id="lazy"),
    pytest.param(r"(ab)+", "'\\(' in this place", id="group"),
    pytest.param(r"(?:ab)+", "a group with a bound", id="bound of a group"),
    pytest.param(r"^a", "'\\^' in this place", id="anchor"),
    pytest.param(r"[a-z", "a class has no end", id="class"),
    pytest.param(r"(?=a)b", "'\\(' in this place", id="look ahead"),
    pytest.param(r"a\b", "an unknown escape", id="border"),
    pytest.param(r"a)", "closed that was not opened", id="bracket"),
])
def test_other_patterns_are_refused(pattern: str, fault: str) -> None:
    with pytest.raises(TokenizerError, match=fault):
        parse(pattern)


@pytest.mark.parametrize(("change", "fault"), [
    pytest.param({"normalizer": {"type": "NFC"}}, "it has a normaliser", id="normaliser"),
    pytest.param({"pre_tokenizer": {"type": "Whitespace"}}, "cannot cut by", id="cut"),
    pytest.param({"pre_tokenizer": None}, "makes no bytes", id="no bytes"),
    pytest.param({"model": {"type": "WordPiece", "vocab": {"a": 0}, "merges": []}}, "is WordPiece", id="model"),
    pytest.param({"model": {"vocab": {"a": 0}, "merges": []}}, "lacks 255 of the 256 bytes", id="bytes"),
    pytest.param({"model": 3}, "cannot be read", id="damaged"),
])
def test_other_tokenizers_are_refused(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    facts = json.loads(backend_of(GLM4, size=300).to_str())
    (tmp_path / "tokenizer.json").write_text(json.dumps({**facts, **change}), encoding="utf-8")
    with pytest.raises(TokenizerError, match=fault):
        tables_of(tmp_path / "tokenizer.json")
