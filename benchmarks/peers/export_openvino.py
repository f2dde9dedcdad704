"""Export a checkpoint for OpenVINO GenAI: `python -m peers.export_openvino SHAPE CHECKPOINT FOLDER`; the folder's
name ends with int8 or int4.

Runs in the environment export. Weights are symmetric; int8 has a scale for each row, int4 for each group.
"""

from __future__ import annotations

import sys
from pathlib import Path

import openvino
from openvino_tokenizers import convert_tokenizer
from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig
from transformers import PreTrainedTokenizerFast

from peers.shapes import SHAPES


def main(shape: str, checkpoint: Path, folder: Path) -> None:
    """Write the model and its tokenizer."""
    if folder.name.endswith("int8"):
        recipe = OVWeightQuantizationConfig(bits=8, sym=True)
    else:
        recipe = OVWeightQuantizationConfig(bits=4, sym=True, group_size=SHAPES[shape].int4_group, ratio=1.0)
    model = OVModelForCausalLM.from_pretrained(checkpoint, export=True, quantization_config=recipe, compile=False)
    model.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(checkpoint / "tokenizer.json"), pad_token="<pad>",
                                        eos_token="<eos>")
    tokenizer.save_pretrained(folder)
    encoder, decoder = convert_tokenizer(tokenizer, with_detokenizer=True)
    openvino.save_model(encoder, folder / "openvino_tokenizer.xml")
    openvino.save_model(decoder, folder / "openvino_detokenizer.xml")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
