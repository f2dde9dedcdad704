"""Give a random checkpoint a tokenizer that texts can be served with: `python -m peers.make_served CHECKPOINT FOLDER`.

The folder links to the weights. The tokenizer is a byte-level BPE with GLM's special tokens and as many pieces as the
model has rows; its pieces are runs of letters, so that whatever a random model says is text. Environment transformers,
or ours with `tokenizers`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import count, islice, product
from pathlib import Path
from string import ascii_lowercase

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

SPECIALS = ("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
_SPACE = "Ġ"  # how byte-level BPE writes a space


def merges() -> Iterator[tuple[str, str]]:
    """Runs of letters, with and without a space before them, the short ones first."""
    yield from ((_SPACE, letter) for letter in ascii_lowercase)
    for length in count(2):
        for letters in product(ascii_lowercase, repeat=length):
            for start in ("", _SPACE):
                yield start + "".join(letters[:-1]), letters[-1]


def make(checkpoint: Path, folder: Path) -> None:
    """Write the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((checkpoint / "config.json").read_text())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    chosen = list(islice(merges(), config["vocab_size"] - len(alphabet) - len(SPECIALS)))
    pieces = [*alphabet, *("".join(pair) for pair in chosen)]
    tokenizer = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=chosen))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIALS])
    end = tokenizer.token_to_id(SPECIALS[0])
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": SPECIALS[0], "eos_token": SPECIALS[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": end, "pad_token_id": end}))
    for weights in checkpoint.glob("*.safetensors"):
        link = folder / weights.name
        link.unlink(missing_ok=True)
        link.symlink_to(weights.resolve())


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
