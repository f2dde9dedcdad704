"""Write a checkpoint as GGUF in bf16: `python -m peers.make_gguf CHECKPOINT FILE` (environment transformers)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors import safe_open

TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
LAYER = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
         "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
NORMAL, CONTROL = 1, 3


def gguf_name(name: str) -> str:
    """The GGUF name of a tensor of transformers' GLM."""
    stem = name.removesuffix(".weight")
    if stem in TOP:
        return f"{TOP[stem]}.weight"
    layer, _, part = stem.removeprefix("model.layers.").partition(".")
    return f"blk.{int(layer)}.{LAYER[part]}.weight"


def add_facts(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    """The shape of the model."""
    rope = config["rope_parameters"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(int(config["head_dim"] * rope["partial_rotary_factor"]))
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: dict[str, Any], vocab: int) -> None:
    """The byte-level BPE."""
    numbers = tokenizer["model"]["vocab"]
    pieces = sorted(numbers, key=numbers.__getitem__)
    if len(pieces) != vocab:
        raise ValueError(f"the tokenizer has {len(pieces)} pieces, the model {vocab}")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(pieces)
    writer.add_token_types([CONTROL if piece in ("<pad>", "<eos>") else NORMAL for piece in pieces])
    writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair
                             for pair in tokenizer["model"]["merges"]])
    writer.add_add_bos_token(False)
    writer.add_eos_token_id(numbers["<eos>"])
    writer.add_pad_token_id(numbers["<pad>"])


def main(checkpoint: Path, file: Path) -> None:
    """Write the file."""
    config = json.loads((checkpoint / "config.json").read_text())
    writer = gguf.GGUFWriter(str(file), "chatglm")
    add_facts(writer, config)
    add_tokenizer(writer, json.loads((checkpoint / "tokenizer.json").read_text()), config["vocab_size"])
    with safe_open(str(checkpoint / "model.safetensors"), "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - safe_open is no mapping
            tensor = tensors.get_tensor(name)
            if tensor.dim() == 1:
                writer.add_tensor(gguf_name(name), tensor.float().numpy())
            else:
                raw = tensor.contiguous().view(torch.int16).numpy().view(np.uint8)
                writer.add_tensor(gguf_name(name), raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
