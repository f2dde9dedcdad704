"""What the configuration of a checkpoint folder says; reading it takes neither torch nor the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from openautoglm.core.errors import BundleError
from openautoglm.core.files import read_json
from openautoglm.models.spec import GlmSpec


def read_spec(folder: Path) -> GlmSpec:
    """The architecture.

    Raises:
        BundleError: there is no configuration, or it cannot be read.
        SpecError: the architecture is not supported.
    """
    return GlmSpec.from_config(read_config(folder), where=str(folder / "config.json"))


def stored_type(folder: Path) -> Literal["fp32", "bf16"]:
    """In which type the weights are stored; fp32 for any that is neither, and where nothing is said.

    Raises:
        BundleError: there is no configuration, or it cannot be read.
    """
    config = read_config(folder)
    return "bf16" if config.get("dtype", config.get("torch_dtype")) == "bfloat16" else "fp32"


def read_config(folder: Path) -> dict[str, Any]:
    """The mapping in config.json.

    Raises:
        BundleError: it is missing, damaged or no mapping.
    """
    path = folder / "config.json"
    try:
        config = read_json(path)
    except (OSError, ValueError) as error:
        raise BundleError(f"config.json cannot be read: {error}", where=str(folder),
                          remedy="give a folder that holds a transformers checkpoint") from error
    if not isinstance(config, dict):
        raise BundleError("config.json is no mapping", where=str(folder), remedy="fetch the checkpoint again")
    return config
