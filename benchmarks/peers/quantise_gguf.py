"""Quantise a GGUF file: `python -m peers.quantise_gguf IN OUT`, OUT ends with q8_0.gguf or q4_0.gguf.

Runs in the environment llama.
"""

from __future__ import annotations

import sys

import llama_cpp

TYPES = {"q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}


def main(source: str, target: str) -> None:
    """Write the quantised file."""
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = TYPES[target.removesuffix(".gguf")[-4:]]
    settings.nthread = 2
    code = llama_cpp.llama_model_quantize(source.encode(), target.encode(), settings)
    if code:
        raise RuntimeError(f"llama_model_quantize answered {code}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
