"""A bundle on disk: transformers loads it, hashes guard it, errors say what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from openautoglm.core.errors import BundleError
from openautoglm.core.files import sha256_file
from openautoglm.models import hf
from openautoglm.models.bundle import Bundle, export, open_bundle
from openautoglm.models.bundle_writer import write_bundle
from openautoglm.models.card import CARD_NAME
from openautoglm.models.spec import GlmSpec
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer

IDS = torch.arange(24).view(2, 12)


@pytest.fixture
def folder(written: Bundle, tmp_path: Path) -> Path:
    """A copy of the bundle to damage."""
    shutil.copytree(written.path, tmp_path / "copy")
    return tmp_path / "copy"


def card_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / CARD_NAME).read_text(encoding="utf-8"))
    return content


def change_card(folder: Path, **changes: Any) -> None:
    (folder / CARD_NAME).write_text(json.dumps({**card_of(folder), **changes}), encoding="utf-8")


def test_transformers_loads_it_and_gives_the_same_logits(written: Bundle, model: Any) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(written.path)
    assert torch.equal(theirs(IDS).logits, model(IDS).logits)
    assert torch.equal(open_bundle(written.path).model()(IDS).logits, model(IDS).logits)


def test_its_tokenizer_prompts_as_ours(written: Bundle) -> None:
    ids = AutoTokenizer.from_pretrained(written.path).apply_chat_template(
        [{"role": "user", "content": "The Punter"}], add_generation_prompt=True, return_dict=False
    )
    assert ids == written.template.prompt("The Punter", (), written.tokenizer)


def test_the_end_tokens_are_known_to_transformers(written: Bundle) -> None:
    config = GenerationConfig.from_pretrained(written.path)
    assert config.eos_token_id == list(written.spec.eos_ids)
    assert config.pad_token_id == written.spec.pad_id


@pytest.mark.parametrize(("family", "tied"), [("glm", False), ("glm4", False), ("glm4", True)])
def test_every_family_goes_and_comes(
    tmp_path: Path, spec: GlmSpec, tokenizer: Tokenizer, family: str, tied: bool
) -> None:
    spec = GlmSpec(**{**spec.model_dump(), "family": family, "tied": tied})
    model = hf.build(spec, seed=2, dropout=0.1).eval()
    write_bundle(
        tmp_path / "b", model=model, spec=spec, tokenizer=tokenizer, template=Template(), card_facts={}
    )
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path / "b")(IDS).logits, model(IDS).logits)


def test_bf16_takes_half_the_bytes(tmp_path: Path, written: Bundle, model: Any, spec: GlmSpec) -> None:
    half = write_bundle(
        tmp_path / "half",
        model=model,
        spec=spec,
        tokenizer=written.tokenizer,
        template=written.template,
        card_facts={},
        dtype="bfloat16",
    )
    sizes = [(bundle.path / "model.safetensors").stat().st_size for bundle in (half, written)]
    assert 0.45 < sizes[0] / sizes[1] < 0.6
    assert half.model().dtype == torch.bfloat16
    assert AutoModelForCausalLM.from_pretrained(half.path).dtype == torch.bfloat16
    assert torch.allclose(half.model(torch.float32)(IDS).logits, model(IDS).logits, atol=0.05)


def test_the_card_says_what_it_was_told(written: Bundle) -> None:
    card = open_bundle(written.path).card
    assert (card.format, card.data, card.scores, card.recipe) == (1, "abc", {"BLEU": 1.5}, {"seed": 1})
    assert card.tokenizer == written.tokenizer.fingerprint
    assert {"python", "torch", "transformers", "tokenizers"} <= set(card.versions)
    assert set(card.files) == {file.name for file in written.path.iterdir()} - {CARD_NAME}


@pytest.mark.parametrize("suffix", ["", ".zip", ".pkl"])
def test_every_form_gives_the_same_model(written: Bundle, model: Any, tmp_path: Path, suffix: str) -> None:
    path = export(written, tmp_path / f"out{suffix}")
    bundle = open_bundle(path)
    assert bundle.card == written.card
    assert torch.equal(bundle.model()(IDS).logits, model(IDS).logits)
    unpacked = bundle.path
    del bundle
    assert unpacked.exists() == (suffix == ""), "an archive's folder goes with its bundle"


def test_writing_again_takes_the_place_of_the_old(written: Bundle, folder: Path, spec: GlmSpec) -> None:
    (folder / "stray").write_text("x", encoding="utf-8")
    other = hf.build(spec, seed=9)
    write_bundle(
        folder,
        model=other,
        spec=spec,
        tokenizer=written.tokenizer,
        template=Template(kind="glm4"),
        card_facts={},
    )
    assert not (folder / "stray").exists()
    assert open_bundle(folder).template.kind == "glm4"


def test_a_failed_write_leaves_the_old_bundle(folder: Path, written: Bundle, spec: GlmSpec) -> None:
    wide = GlmSpec(**{**spec.model_dump(), "ffn_size": 64})
    with pytest.raises(BundleError, match=r"not those of its spec.*down_proj|not those of its spec.*gate_up"):
        write_bundle(
            folder,
            model=hf.build(wide, seed=1),
            spec=spec,
            tokenizer=written.tokenizer,
            template=Template(),
            card_facts={},
        )
    assert open_bundle(folder).card == written.card
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_foreign_facts_and_tokenizers_are_refused(
    written: Bundle, tmp_path: Path, model: Any, spec: GlmSpec
) -> None:
    given = {"model": model, "spec": spec, "template": Template()}
    with pytest.raises(BundleError, match="mood"):
        write_bundle(tmp_path / "b", **given, tokenizer=written.tokenizer, card_facts={"mood": 1})
    large = Tokenizer.train(["".join(chr(97 + i * j % 26) for j in range(40)) for i in range(40)], 400)
    with pytest.raises(BundleError, match="with_vocabulary"):
        write_bundle(tmp_path / "b", **given, tokenizer=large, card_facts={})


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json"]
)
def test_a_damaged_file_is_named(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} is damaged") as caught:
        open_bundle(folder)
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer_config.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"lacks {name}"):
        open_bundle(folder)


def test_a_file_left_out_of_the_card_is_missing_too(folder: Path) -> None:
    files = card_of(folder)["files"]
    del files["config.json"]
    change_card(folder, files=files)
    with pytest.raises(BundleError, match=r"lacks config\.json"):
        open_bundle(folder)


def test_a_newer_format_asks_for_a_newer_version(folder: Path) -> None:
    change_card(folder, format=2, something_new=True)
    with pytest.raises(BundleError, match="format 2") as caught:
        open_bundle(folder)
    assert "newer" in str(caught.value.remedy)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', "[" * 100_000, '{"format": "1"}'])
def test_a_damaged_card_is_said(folder: Path, text: str) -> None:
    (folder / CARD_NAME).write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match="is damaged"):
        open_bundle(folder)


def test_a_card_cannot_point_outside(folder: Path) -> None:
    change_card(folder, files={**card_of(folder)["files"], "../x": "0"})
    with pytest.raises(BundleError, match="plain file name"):
        open_bundle(folder)


def test_a_configuration_of_another_model_is_refused(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"rms_norm_eps": 1e-05', '"rms_norm_eps": 0.1'))
    change_card(folder, files={**card_of(folder)["files"], "config.json": sha256_file(path)})
    with pytest.raises(BundleError, match="different architectures"):
        open_bundle(folder)


def test_what_is_no_bundle_is_said(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        open_bundle(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"not a bundle: autoglm\.json"):
        open_bundle(tmp_path)
    (tmp_path / "x.bin").write_bytes(b"hello")
    with pytest.raises(BundleError, match="neither a folder nor"):
        open_bundle(tmp_path / "x.bin")
