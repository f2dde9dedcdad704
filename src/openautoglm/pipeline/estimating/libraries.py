"""What interpreter and libraries take before a model is there: a process of its own imports them and works a little.

    python -m openautoglm.pipeline.estimating.libraries train
"""

from __future__ import annotations

import contextlib
import os
import subprocess  # nosec B404  # our own command, no shell
import sys
from functools import cache
from pathlib import Path
from typing import Literal

from openautoglm.core.errors import ResourceError
from openautoglm.core.files import fingerprint, read_json, write_json
from openautoglm.models.card import versions

Kind = Literal["train", "lora", "compress", "serve"]
_TIMEOUT_S = 300


@cache
def library_bytes(kind: Kind) -> int:
    """Bytes that a process holds which is ready to train, compress or serve.

    Measured once for an installation: the figure is kept in the user's folder of caches, under the versions.

    Raises:
        ResourceError: the process that measures has failed.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = caches / "openautoglm" / f"libraries-{kind}-{fingerprint([sys.executable, sys.version, versions()])}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # absent or damaged: it is measured again
        return int(read_json(place)["bytes"])
    found = _measured(kind)
    with contextlib.suppress(OSError):  # a folder that cannot be written to costs the next call some seconds
        write_json(place, {"bytes": found})
    return found


def _measured(kind: Kind) -> int:
    done = subprocess.run(  # nosec B603  # our own command, no shell
        (sys.executable, "-m", __name__, kind), capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    lines = done.stdout.split()
    if done.returncode or not lines or not lines[-1].isdigit():
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ResourceError(f"the libraries cannot be measured: {last}", where=kind,
                            remedy="`autoglm doctor` says what is missing")
    return int(lines[-1])


def _train(*, adapters: bool) -> None:
    """A step of training of a model as small as can be."""
    import typer  # noqa: F401  # what the command itself brings

    import openautoglm.pipeline.learn  # noqa: F401
    from openautoglm.data.tokens import store_from_ids
    from openautoglm.models import hf
    from openautoglm.models.spec import GlmSpec
    from openautoglm.train.loop import train
    from openautoglm.train.lora import LoraSettings, add_lora
    from openautoglm.train.settings import TrainSettings

    model = hf.build(GlmSpec(vocab_size=32, hidden_size=32, layers=1, heads=2, kv_heads=2, head_dim=16, ffn_size=32),
                     seed=0)
    if adapters:
        model = add_lora(model, LoraSettings(rank=1))
    store = store_from_ids([(list(range(8)), 4)] * 4)
    for _ in train(model, store, store, TrainSettings(passes=1, batch=4, precision="fp32"), None):
        pass


def _compress() -> None:
    """Products and factors, as quantisation makes them."""
    import torch
    import typer  # noqa: F401

    import openautoglm.compress.quantise
    import openautoglm.models.quantised_bundle
    import openautoglm.pipeline.compressing.run  # noqa: F401

    square = torch.eye(256) + 0.1
    torch.linalg.solve_triangular(torch.linalg.cholesky_ex(square @ square.t())[0], square, upper=False)


def _serve() -> None:
    """An engine's modules, and a team of threads."""
    from openautoglm.runtime.native import native_module

    native = native_module()
    if native is not None:
        native.Team(2, "", [], 0)


def main(kind: str) -> None:
    """Become ready for a kind of work, and print the bytes of the process."""
    from openautoglm.runtime.memory import resident_bytes

    if kind in ("train", "lora"):
        _train(adapters=kind == "lora")
    elif kind == "compress":
        _compress()
    else:
        _serve()
    print(resident_bytes())


if __name__ == "__main__":
    main(sys.argv[1])
