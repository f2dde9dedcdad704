"""Export a checkpoint for OpenVINO GenAI: `python -m peers.export_openvino SHAPE CHECKPOINT FOLDER`; the folder's
name ends with int8 or int4.

Runs in the environment export. Weights are symmetric; int8 has a scale for each row, int4 for each group.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import openvino
from openvino_tokenizers import convert_tokenizer
from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig
from transformers import PreTrainedTokenizerFast

from peers.shapes import SHAPES


def rewrite(checkpoint: Path, folder: Path) -> None:
    """Link the checkpoint into the folder, its rotary settings under the names that this older transformers reads.

    It would take its own defaults without a word, and export another model.
    """
    for file in checkpoint.iterdir():
        if file.name != "config.json":
            (folder / file.name).symlink_to(file.resolve())
    config = json.loads((checkpoint / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config |= {"partial_rotary_factor": rope["partial_rotary_factor"], "rope_theta": rope["rope_theta"]}
    (folder / "config.json").write_text(json.dumps(config))


def main(shape: str, checkpoint: Path, folder: Path) -> None:
    """Write the model and its tokenizer."""
    if folder.name.endswith("int8"):
        recipe = OVWeightQuantizationConfig(bits=8, sym=True)
    else:
        recipe = OVWeightQuantizationConfig(bits=4, sym=True, group_size=SHAPES[shape].int4_group, ratio=1.0)
    with tempfile.TemporaryDirectory() as scratch:
        rewrite(checkpoint, Path(scratch))
        model = OVModelForCausalLM.from_pretrained(scratch, export=True, quantization_config=recipe, compile=False)
        model.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(checkpoint / "tokenizer.json"), pad_token="<pad>",
                                        eos_token="<eos>")
    tokenizer.save_pretrained(folder)
    encoder, decoder = convert_tokenizer(tokenizer, with_detokenizer=True)
    openvino.save_model(encoder, folder / "openvino_tokenizer.xml")
    openvino.save_model(decoder, folder / "openvino_detokenizer.xml")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
