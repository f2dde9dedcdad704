"""Pre-tokenisers are told by what they do; element types hold what ggml's blocks hold."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from gguf_tools import gguf as library
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from openautoglm.core.errors import BundleError
from openautoglm.export.element_types import ELEMENT_TYPES, encode, keeps_codes, row_bytes
from openautoglm.export.gguf_splits import SPLITS, choose
from openautoglm.runtime.quantised import QuantisedMatrix, quantise
from openautoglm.text.tokenizer import Tokenizer

TEXTS = ["The pub don't serve 12345 or 1999 pints, name[Aromi] cafe\u0301; they've £20-25.\n\n  It's 5 of 10!\n"] * 3
TEXTS += ["床前明月光，疑是地上霜。举头望明月，低头思故乡。"] * 3
PATTERNS = {split.name: split.patterns for split in SPLITS}


def trained(patterns: tuple[str, ...]) -> dict[str, Any]:
    """A byte-level BPE that cuts by some patterns."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=500, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    definition: dict[str, Any] = json.loads(backend.to_str())
    return definition


@pytest.mark.parametrize("name", ["chatglm-bpe", "gpt-2", "qwen2", "starcoder"])
def test_a_pattern_of_llama_cpp_is_found_and_exact(name: str) -> None:
    """Of those that give equal ids the first is taken: digits apart have no merges that could join them."""
    choice = choose(trained(PATTERNS[name]), ())
    assert choice[:2] == ({"qwen2": "chatglm-bpe", "starcoder": "gpt-2"}.get(name, name), {})
    assert choice.told() is None


def test_gpt2s_own_byte_level_is_found() -> None:
    definition = trained(PATTERNS["gpt-2"])
    definition["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                                   "use_regex": True}
    assert choose(definition, ())[:2] == ("gpt-2", {})


def test_whole_words_that_skip_merging_are_seen() -> None:
    definition = trained(PATTERNS["glm4"])
    definition["model"]["ignore_merges"] = True
    definition["model"]["vocab"]["Ġunreachable"] = max(definition["model"]["vocab"].values()) + 1
    assert choose(definition, (" unreachable",)).name == "glm4"


def test_what_no_pattern_does_is_told_with_examples() -> None:
    own = json.loads(Tokenizer.train([f"{text} {number}" for number in range(900, 1400) for text in TEXTS], 600)
                     ._backend.to_str())
    choice = choose(own, (" pub", " 123"))
    assert choice.name == "gpt-2"
    assert set(choice.differing) >= {"numbers of four digits and more"}
    assert "words" not in choice.differing
    assert "gpt-2" in str(choice.told())
    normalised = {**own, "normalizer": {"type": "Lowercase"}}
    assert "words" in choose(normalised, ()).differing


@pytest.mark.parametrize("kind", ELEMENT_TYPES)
def test_rows_become_blocks(kind: Any) -> None:
    rows = np.random.default_rng(1).normal(0, 0.1, (5, 96)).astype(np.float32)
    rows[2] = 0
    data = encode(rows, kind, "some.weight")
    assert data.shape == (5, row_bytes(kind, 96))
    back = library.quants.dequantize(data.reshape(5, -1), library.GGMLQuantizationType[kind.upper()]) \
        if kind not in ("f32", "f16") else data.view({"f32": "<f4", "f16": "<f2"}[kind])
    steps = {"f32": 0, "f16": 2e-4, "bf16": 2e-3, "q8_0": 3e-3, "q5_0": 2e-2, "q5_1": 2e-2, "q4_0": 5e-2, "q4_1": 4e-2}
    assert np.abs(back.reshape(5, 96).astype(np.float32) - rows).max() <= steps[kind]
    assert (back.reshape(5, 96)[2] == 0).all()


def test_values_near_nothing_are_zero_without_a_warning() -> None:
    rows = np.full((1, 32), 1e-42, np.float32)
    for kind in ("q8_0", "q4_0", "q4_1"):
        back = library.quants.dequantize(encode(rows, kind, "w"), library.GGMLQuantizationType[kind.upper()])
        assert (back == 0).all()


@pytest.mark.parametrize("kind", ["f16", "q8_0", "q4_1"])
def test_what_fp16_cannot_hold_is_refused(kind: Any) -> None:
    with pytest.raises(BundleError, match="w holds a value beyond"):
        encode(np.full((1, 32), 1e6, np.float32), kind, "w")


@pytest.mark.parametrize(("bits", "symmetric", "kind"), [(8, True, "q8_0"), (4, True, "q4_0"), (4, False, "q4_1")],
                         ids=["int8", "int4", "int4-asymmetric"])
def test_codes_are_kept_though_no_group_uses_its_range(bits: Any, symmetric: bool, kind: Any) -> None:
    """Methods that choose codes by their effect leave groups whose largest code is small; rounding would move them."""
    dice = np.random.default_rng(3)
    low, high = {(8, True): (-50, 50), (4, True): (-3, 4), (4, False): (5, 12)}[bits, symmetric]
    codes = dice.integers(low, high, (4, 64)).astype(np.int8 if symmetric else np.uint8)
    zeros = None if symmetric else np.full((4, 2), 8, np.uint8)
    matrix = QuantisedMatrix(bits, codes, np.full((4, 2), 0.125, np.float32), zeros)
    back = library.quants.dequantize(encode(matrix, kind, "w"), library.GGMLQuantizationType[kind.upper()])
    np.testing.assert_array_equal(back, matrix.dequantise())


def test_groups_that_no_block_follows_are_rounded_again() -> None:
    matrix = quantise(np.random.default_rng(1).normal(0, 1, (2, 96)).astype(np.float32), 4, 16)
    assert not keeps_codes(matrix, "q4_0")
    back = library.quants.dequantize(encode(matrix, "q8_0", "w"), library.GGMLQuantizationType.Q8_0)
    assert np.abs(back - matrix.dequantise()).max() < 0.03
