"""What stands in a GGUF file: keys, names, shapes, types, values; and what is refused before anything is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from export_models import FORMS, write_random
from gguf_tools import Found
from safetensors.torch import load_file, save_file

from openautoglm.core.errors import AutoGLMError, BundleError, ResourceError, SpecError, TokenizerError
from openautoglm.export import gguf, weights
from openautoglm.export.gguf import write_gguf
from openautoglm.export.gguf_tensors import tensors_of
from openautoglm.export.source import open_source
from openautoglm.models.bundle import Bundle
from openautoglm.models.quantised_file import QuantisedWriter
from openautoglm.models.spec import GlmSpec
from openautoglm.runtime.quantised import QuantisedMatrix, quantise
from openautoglm.text.jinja import chat_template
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer


def as_checkpoint(bundle: Bundle, folder: Path) -> Path:
    """A folder without a card, as checkpoints are released."""
    shutil.copytree(bundle.path, folder)
    (folder / "autoglm.json").unlink()
    return folder


def test_the_architecture_is_written_out(bundle: Bundle, tmp_path: Path) -> None:
    keys = Found(write_gguf(open_source(bundle), tmp_path / "model.gguf").path).keys
    spec, name = bundle.spec, {"glm": "chatglm", "glm4": "glm4"}[bundle.spec.family]
    found = {key.removeprefix(f"{name}."): value for key, value in keys.items() if key.startswith(f"{name}.")}
    assert keys["general.architecture"] == name
    assert found == {
        "vocab_size": spec.vocab_size, "context_length": 128, "embedding_length": 64, "feed_forward_length": 96,
        "block_count": 2, "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 16,
        "attention.value_length": 16, "attention.layer_norm_rms_epsilon": pytest.approx(spec.rms_eps),
        "rope.dimension_count": 16 * spec.rotary_factor, "rope.freq_base": pytest.approx(spec.rope_theta)}


def test_every_weight_is_there_and_equal(bundle: Bundle, tmp_path: Path) -> None:
    found = Found(write_gguf(open_source(bundle), tmp_path / "model.gguf").path)
    stored = load_file(bundle.path / "model.safetensors")
    names = {tensor.source: tensor.target for tensor in tensors_of(bundle.spec)}
    assert set(names) == set(stored)
    assert set(found.types) == set(names.values())
    assert set(found.types.values()) == {"f32"}
    for source, target in names.items():
        np.testing.assert_array_equal(found.values(target), stored[source].numpy(), err_msg=target)


def test_the_vocabulary_is_that_of_the_model(bundle: Bundle, tmp_path: Path) -> None:
    keys = Found(write_gguf(open_source(bundle), tmp_path / "model.gguf").path).keys
    tokenizer, pieces = bundle.tokenizer, keys["tokenizer.ggml.tokens"]
    definition = json.loads((bundle.path / "tokenizer.json").read_text(encoding="utf-8"))
    assert keys["tokenizer.ggml.model"] == "gpt2"
    assert len(pieces) == len(set(pieces)) == bundle.spec.vocab_size > tokenizer.vocab_size
    assert {text: pieces.index(text) for text in tokenizer.special} == dict(tokenizer.special)
    assert all(pieces[i] == text for text, i in definition["model"]["vocab"].items())
    kinds = keys["tokenizer.ggml.token_type"]
    assert {i for i, kind in enumerate(kinds) if kind == 3} == set(tokenizer.special.values())
    assert {i for i, kind in enumerate(kinds) if kind == 5} == set(range(tokenizer.vocab_size, len(pieces)))
    assert keys["tokenizer.ggml.merges"] == [" ".join(pair) for pair in definition["model"]["merges"]]
    ends = [keys[f"tokenizer.ggml.{key}_token_id"] for key in ("eos", "eot", "eom")
            if f"tokenizer.ggml.{key}_token_id" in keys]
    assert tuple(ends) == bundle.spec.eos_ids
    assert keys["tokenizer.ggml.add_bos_token"] is False
    assert keys["tokenizer.chat_template"] == chat_template(bundle.template)


def test_pieces_of_rows_change_nothing(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_gguf(open_source(bundle), tmp_path / "whole.gguf", "q8_0").path
    monkeypatch.setattr(weights, "CHUNK_VALUES", 300)
    assert max(piece.size for piece in weights.Weights(bundle.path).pieces("model.embed_tokens.weight")) <= 320
    assert write_gguf(open_source(bundle), tmp_path / "pieces.gguf", "q8_0").path.read_bytes() == whole.read_bytes()


def test_narrow_types_leave_embedding_head_and_vectors_finer(tmp_path: Path, tokenizer: Tokenizer) -> None:
    bundle = write_random(tmp_path / "bundle", tokenizer, **FORMS["glm"])
    found = Found(write_gguf(open_source(bundle), tmp_path / "model.gguf", "q4_0").path)
    assert {name: kind for name, kind in found.types.items() if kind != "q4_0"} == {
        "token_embd.weight": "q8_0", "output.weight": "q8_0", "output_norm.weight": "f32",
        **{f"blk.{layer}.{name}": "f32" for layer in range(2)
           for name in ("attn_norm.weight", "ffn_norm.weight", "attn_q.bias", "attn_k.bias", "attn_v.bias")}}
    assert found.keys["general.file_type"] == 2


def test_rows_that_blocks_do_not_divide_are_f16(tmp_path: Path, tokenizer: Tokenizer) -> None:
    bundle = write_random(tmp_path / "bundle", tokenizer, ffn_size=80)
    written = write_gguf(open_source(bundle), tmp_path / "model.gguf", "q8_0")
    assert Found(written.path).types["blk.0.ffn_down.weight"] == "f16"
    assert any("2 matrices" in note for note in written.notes)


def test_bf16_stays_bf16(tmp_path: Path, tokenizer: Tokenizer) -> None:
    bundle = write_random(tmp_path / "bundle", tokenizer, dtype="bfloat16")
    found = Found(write_gguf(open_source(bundle), tmp_path / "model.gguf").path)
    stored = load_file(bundle.path / "model.safetensors")
    assert found.types["blk.1.ffn_up.weight"] == "bf16"
    np.testing.assert_array_equal(found.values("blk.1.ffn_up.weight"),
                                  stored["model.layers.1.mlp.gate_up_proj.weight"].float().numpy())


def quantised_folder(bundle: Bundle, folder: Path, bits: Any, group: int, symmetric: bool) -> dict[str, Any]:
    """Put quantised weights in place of the plain ones; return what was written."""
    as_checkpoint(bundle, folder)
    made: dict[str, Any] = {}
    for name, values in load_file(folder / "model.safetensors").items():
        plain = values.float().numpy()
        made[name] = quantise(plain, bits, group, symmetric=symmetric) if values.dim() == 2 else plain
    (folder / "model.safetensors").unlink()
    with QuantisedWriter(folder / "quantised.safetensors") as writer:
        for name, made_one in made.items():
            writer.add(name, made_one)
    return made


@pytest.mark.parametrize(("bits", "group", "symmetric", "kind"), [
    (8, 32, True, "q8_0"), (8, 0, True, "q8_0"), (4, 32, True, "q4_0"), (4, 32, False, "q4_1")],
    ids=["int8", "int8-row", "int4", "int4-asymmetric"])
def test_quantised_bundles_keep_their_codes(edge: Bundle, tmp_path: Path, bits: int, group: int, symmetric: bool,
                                            kind: str) -> None:
    made = quantised_folder(edge, tmp_path / "quantised", bits, group, symmetric)
    found = Found(write_gguf(open_source(tmp_path / "quantised"), tmp_path / "model.gguf").path)
    assert set(found.types.values()) == {kind, "f32"}
    for source, target, _ in tensors_of(edge.spec):
        matrix = made[source]
        if isinstance(matrix, QuantisedMatrix):
            exact = matrix.dequantise()
            steps = np.abs(matrix.scales).repeat(matrix.group, 1)
            # fp16 rounds a scale by one part in 2048, and there are at most 127 (or 15) steps
            assert (np.abs(found.values(target) - exact) <= steps * (127 if bits == 8 else 30) / 2047).all(), target
        else:
            np.testing.assert_array_equal(found.values(target), matrix)


def test_asymmetric_int8_is_rounded_again(edge: Bundle, tmp_path: Path) -> None:
    made = quantised_folder(edge, tmp_path / "quantised", 8, 32, False)
    found = Found(write_gguf(open_source(tmp_path / "quantised"), tmp_path / "model.gguf").path)
    name = "model.layers.0.mlp.down_proj.weight"
    exact = made[name].dequantise()
    most = np.abs(exact).max() / 127
    assert found.types["blk.0.ffn_down.weight"] == "q8_0"
    assert np.abs(found.values("blk.0.ffn_down.weight") - exact).max() <= most * 0.51 + 127 * most / 2047


def test_checkpoints_in_several_files_with_their_own_template(edge: Bundle, tmp_path: Path) -> None:
    folder = as_checkpoint(edge, tmp_path / "released")
    stored = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = {"a.safetensors": dict(list(stored.items())[:5]), "b.safetensors": dict(list(stored.items())[5:])}
    for name, tensors in parts.items():
        save_file(tensors, folder / name)
    index = {name: file for file, tensors in parts.items() for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}), encoding="utf-8")
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["chat_template"] = [{"name": "tools", "template": "T"}, {"name": "default", "template": "{{ messages }}"}]
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    found = Found(write_gguf(open_source(folder), tmp_path / "model.gguf").path)
    np.testing.assert_array_equal(found.values("output_norm.weight"), stored["model.norm.weight"].numpy())
    assert found.keys["tokenizer.chat_template"] == "{{ messages }}"
    assert found.keys["general.name"] == "released"
    (folder / "tokenizer_config.json").unlink()
    assert open_source(folder).template == chat_template(Template(kind="glm4"))


class Fault(NamedTuple):
    """What is done to a checkpoint, and what its export then says."""

    damage: Callable[[Path], object]
    error: type[AutoGLMError]
    words: str


def change_weight(name: str, change: Callable[[torch.Tensor], torch.Tensor | None]) -> Callable[[Path], object]:
    """Change or drop a tensor of the file."""

    def damage(folder: Path) -> None:
        stored = load_file(folder / "model.safetensors")
        changed = change(stored.pop(name))
        save_file(stored if changed is None else {**stored, name: changed}, folder / "model.safetensors")

    return damage


def change_json(name: str, change: Callable[[Any], object]) -> Callable[[Path], object]:
    """Change a JSON file in place."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        change(content)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")

    return damage


NORM, DOWN = "model.norm.weight", "model.layers.1.mlp.down_proj.weight"
FAULTS = {
    "no-tokenizer": Fault(lambda folder: (folder / "tokenizer.json").unlink(), TokenizerError, "tokenizer.json"),
    "no-weights": Fault(lambda folder: (folder / "model.safetensors").unlink(), BundleError, "cannot be read"),
    "weight-missing": Fault(change_weight(NORM, lambda _: None), BundleError, f"{NORM} is missing"),
    "weight-shape": Fault(change_weight(DOWN, lambda values: values[:5].clone()), BundleError, r"has shape \[5, 96\]"),
    "weight-nan": Fault(change_weight(DOWN, lambda values: values * torch.nan), BundleError, "not finite"),
    "weight-large": Fault(change_weight(DOWN, lambda values: values * 1e8), BundleError, "beyond fp16"),
    "vocabulary": Fault(change_json("tokenizer.json", lambda content: content["added_tokens"].extend(
        {**content["added_tokens"][0], "id": 400 + i, "content": f"<more {i}>"} for i in range(30))), TokenizerError,
        "ids, the model 312"),
    "heads": Fault(change_json("config.json", lambda config: config.update(head_dim=32)), SpecError, "4 x 32 = 128"),
    "foreign": Fault(change_json("config.json", lambda config: config.update(model_type="llama")), SpecError, "llama"),
    "merge": Fault(change_json("tokenizer.json", lambda content: content["model"]["merges"].append(["a"])),
                   TokenizerError, "damaged"),
    "template": Fault(change_json("tokenizer_config.json", lambda content: content.update(chat_template={"a": 1})),
                      BundleError, "chat template"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_written_is_refused(edge: Bundle, tmp_path: Path, fault: str) -> None:
    folder = as_checkpoint(edge, tmp_path / "checkpoint")
    FAULTS[fault].damage(folder)
    with pytest.raises(FAULTS[fault].error, match=FAULTS[fault].words) as caught:
        write_gguf(open_source(folder), tmp_path / "out" / "model.gguf", "q8_0")
    assert caught.value.remedy
    assert not list((tmp_path / "out").glob("**/*"))


def test_an_interrupted_export_leaves_the_older_file(edge: Bundle, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"older")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gguf, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_gguf(open_source(edge), path)
    assert path.read_bytes() == b"older"
    assert [file.name for file in tmp_path.iterdir()] == ["model.gguf"]


def test_a_small_disk_is_told_before_writing(edge: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 100))  # type: ignore[attr-defined]
    with pytest.raises(ResourceError, match="GiB are free"):
        write_gguf(open_source(edge), tmp_path / "model.gguf")


def test_names_and_types_are_checked(edge: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is a folder"):
        write_gguf(open_source(edge), tmp_path)
    with pytest.raises(SpecError, match="q3_k"):
        write_gguf(open_source(edge), tmp_path / "model.gguf", "q3_k")  # type: ignore[arg-type]


def test_unused_names_never_meet_a_piece(tmp_path: Path, tokenizer: Tokenizer) -> None:
    odd = json.loads(tokenizer._backend.to_str())
    size = tokenizer.vocab_size
    odd["added_tokens"].append({**odd["added_tokens"][0], "id": size, "content": f"[PAD{size + 1}]", "special": False})
    (tmp_path / "tokenizer.json").write_text(json.dumps(odd), encoding="utf-8")
    bundle = write_random(tmp_path / "bundle", Tokenizer.load(tmp_path))
    keys = Found(write_gguf(open_source(bundle), tmp_path / "model.gguf").path).keys
    pieces = keys["tokenizer.ggml.tokens"]
    assert len(set(pieces)) == len(pieces) == bundle.spec.vocab_size
    assert keys["tokenizer.ggml.token_type"][size] == 4


def test_more_ends_than_the_file_holds_are_told(tmp_path: Path, tokenizer: Tokenizer) -> None:
    bundle = write_random(tmp_path / "bundle", tokenizer)
    folder = as_checkpoint(bundle, tmp_path / "checkpoint")
    change_json("config.json", lambda config: config.update(eos_token_id=[4, 3, 2, 1]))(folder)
    written = write_gguf(open_source(folder), tmp_path / "model.gguf")
    assert any("[1] are left out" in note for note in written.notes)
    assert Found(written.path).keys["tokenizer.ggml.eom_token_id"] == 2


def test_the_shapes_are_those_of_transformers(bundle: Bundle) -> None:
    from openautoglm.models.bundle_writer import shapes

    expected = {name: tuple(shape) for name, shape in shapes(bundle.spec).items()
                if not (bundle.spec.tied and name == "lm_head.weight")}
    assert {tensor.source: tensor.shape for tensor in tensors_of(bundle.spec)} == expected
    assert isinstance(bundle.spec, GlmSpec)
