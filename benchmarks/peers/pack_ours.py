"""Pack our engine's weights for every recipe: `python -m peers.pack_ours SHAPE CHECKPOINT FOLDER` (environment ours).

The folder links to the checkpoint, so that its packed files lie apart from what the peers read. A packed file that
this version would not load is written again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from openautoglm.core.errors import AutoGLMError
from openautoglm.graph.recipe import Quantisation
from openautoglm.runtime.load import load_program
from openautoglm.runtime.native_load import pack_checkpoint
from openautoglm.runtime.program import ComputeType
from peers.catalogue import variants_of


def loads(folder: Path, recipe: Quantisation | None, dtype: ComputeType) -> bool:
    """Whether there is a packed file that fits."""
    try:
        load_program(folder, "native", quantise=recipe, dtype=dtype, load="map", pages=16, max_rows=16, max_wanted=1)
    except AutoGLMError:
        return False
    return True


def main(shape: str, checkpoint: Path, folder: Path) -> None:
    """Link the checkpoint, write what is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to((checkpoint / name).resolve())
    for variant in variants_of(["ours"], shape):
        given, dtype = variant.settings.get("quantise"), variant.settings.get("dtype", "bf16")
        recipe = Quantisation.model_validate(given) if given else None
        if not loads(folder, recipe, dtype):
            print(f"packing {variant.key}", flush=True)
            pack_checkpoint(folder, recipe, dtype, threads=2)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
