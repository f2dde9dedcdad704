"""A model in another form, which the name it is given says: a bundle in one file, GGUF, or OpenVINO IR."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from openautoglm.core.errors import BundleError
from openautoglm.export.element_types import ELEMENT_TYPES, ElementType
from openautoglm.export.gguf import Written, write_gguf
from openautoglm.export.openvino import write_openvino
from openautoglm.export.source import open_source
from openautoglm.models import bundle as bundles
from openautoglm.models.bundle import Bundle

ExportType = ElementType | Literal["openvino"]
EXPORT_TYPES: tuple[ExportType, ...] = (*ELEMENT_TYPES, "openvino")


def export_model(model: Bundle | str | Path, path: str | Path, kind: ExportType | None = None) -> Written:
    """Write a model to `path`.

    Args:
        model: a bundle, or for ``.gguf`` and OpenVINO also the folder of a released checkpoint.
        path: a name ending in ``.gguf`` for llama.cpp; in ``.zip`` or ``.pkl``, or a folder, for a copy of the bundle.
        kind: of ``.gguf`` the element type of matrices (see `write_gguf`); ``openvino``: the folder is OpenVINO IR.

    Raises:
        BundleError: no model, a damaged one, or a type that does not fit the name.
        SpecError, TokenizerError: the form cannot hold the model.
        MissingExtraError: a package is not installed.
        ResourceError: the disk is too small.
    """
    path = Path(path)
    if kind == "openvino":
        return write_openvino(open_source(model), path)
    if path.suffix.lower() == ".gguf":
        return write_gguf(open_source(model), path, kind)
    if kind is not None:
        raise BundleError(f"the type {kind} is one of GGUF's, and the name is not", where=str(path),
                          remedy="give a name that ends in .gguf, or leave the type out")
    opened = bundles.open_bundle(model) if isinstance(model, str | Path) else model
    return Written(bundles.export(opened, path), {}, ())
