"""Write a random checkpoint of a shape: `python -m peers.make_checkpoint SHAPE FOLDER` (environment transformers).

Weights are bf16, so that every engine starts from the same numbers. The tokenizer is a byte-level BPE of the right
size whose merges join any two bytes; some peers do not load without one.
"""

from __future__ import annotations

import sys
from itertools import islice, product
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GlmConfig, GlmForCausalLM, PreTrainedTokenizerFast

from peers.shapes import SHAPES, Shape

SPECIALS = ("<pad>", "<eos>")


def make_model(shape: Shape, folder: Path) -> None:
    """Save the model, bf16: matrices normal with deviation 0.02, norms around 1."""
    config = GlmConfig(
        hidden_size=shape.hidden, num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim, intermediate_size=shape.ffn,
        vocab_size=shape.vocab, attention_bias=False, max_position_embeddings=8192, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
        pad_token_id=0, eos_token_id=1, bos_token_id=None, tie_word_embeddings=False)
    with torch.device("meta"):
        model = GlmForCausalLM(config)
    model = model.to(torch.bfloat16).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.normal_(1.0, 0.05, generator=generator)
            else:
                weight.normal_(0.0, 0.02, generator=generator)
    model.save_pretrained(folder, max_shard_size="10GB")


def make_tokenizer(shape: Shape, folder: Path) -> None:
    """Save a byte-level BPE tokenizer of the shape's vocabulary."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = list(islice(product(alphabet, alphabet), shape.vocab - len(SPECIALS) - len(alphabet)))
    pieces = [*SPECIALS, *alphabet, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>").save_pretrained(folder)


if __name__ == "__main__":
    make_model(SHAPES[sys.argv[1]], Path(sys.argv[2]))
    make_tokenizer(SHAPES[sys.argv[1]], Path(sys.argv[2]))
