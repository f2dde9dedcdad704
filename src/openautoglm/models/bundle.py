"""A model on disk: a folder which transformers loads as it is, plus our card; checked when opened.

In place of ``model.safetensors`` there may be ``quantised.safetensors``, which transformers does not know.
Opening takes no torch: a server on a small machine does it too. Writing is in `models.bundle_writer`.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openautoglm.core.errors import BundleError
from openautoglm.core.files import read_json, sha256_file
from openautoglm.models import archive
from openautoglm.models.card import CARD_NAME, Card, read_card
from openautoglm.models.quantised_file import QUANTISED_NAME
from openautoglm.models.spec import GlmSpec
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

WEIGHTS_NAME = "model.safetensors"
_NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
_AGAIN = "copy or export the bundle again"


@dataclass(frozen=True)
class Bundle:
    """An open, verified bundle; that of an archive lives in a temporary folder as long as this object."""

    path: Path
    card: Card
    tokenizer: Tokenizer

    @property
    def spec(self) -> GlmSpec:
        """The architecture."""
        return self.card.spec

    @property
    def template(self) -> Template:
        """How texts become prompts."""
        return self.card.template

    def model(self, dtype: torch.dtype | None = None) -> Any:
        """Return the weights in transformers' class, on the CPU, in `dtype` (as stored when None); needs torch.

        Quantised weights are dequantised.
        """
        import torch

        from openautoglm.models import hf

        return hf.load(self.path, dtype=dtype or getattr(torch, self.card.dtype))[0]


def open_bundle(path: str | Path, *, max_bytes: int = archive.MAX_BYTES, packed: bool = False) -> Bundle:
    """Open a bundle (folder, ``.zip`` or ``.pkl``): format, files and hashes are checked.

    Packed weights are made from the others and may be gone, or written again by a later version. They may also be
    large and only mapped. So their hashes are checked only when asked for; whoever copies them checks their own sums.

    Args:
        max_bytes: what an archive may unpack to.
        packed: check the hashes of packed weights too, as far as they are there.

    Raises:
        BundleError: not a bundle, damaged, incomplete, or of a newer format.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path, str(path), packed)
    if not path.is_file():
        raise BundleError(
            "does not exist", where=str(path), remedy="give a bundle: a folder, a .zip or a .pkl"
        )
    folder = Path(tempfile.mkdtemp(prefix="autoglm-bundle-"))
    try:
        archive.unpack(path, folder, max_bytes)
        bundle = _open_folder(folder, str(path), packed)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(bundle, shutil.rmtree, folder, ignore_errors=True)
    return bundle


def export(bundle: Bundle, path: str | Path) -> Path:
    """Write `bundle` to `path`: a ``.zip``, a ``.pkl`` of plain containers and bytes, or a folder."""
    path = Path(path)
    files = [bundle.path / name for name in (*bundle.card.files, CARD_NAME)]
    archive.pack([file for file in files if not is_packed(file.name) or file.is_file()], path)
    return path


def is_packed(name: str) -> bool:
    """Whether a file holds packed weights, which `openautoglm.runtime` makes from the others."""
    return name.startswith("packed-") and name.endswith(".safetensors")


def _open_folder(folder: Path, where: str, packed: bool) -> Bundle:
    card = read_card(folder)
    checked = [name for name in card.files if not is_packed(name) or (packed and (folder / name).is_file())]
    missing = [
        name for name in (*_NEEDED, *checked) if name not in card.files or not (folder / name).is_file()
    ]
    weights = [name for name in (WEIGHTS_NAME, QUANTISED_NAME) if name in card.files or (folder / name).exists()]
    missing += [WEIGHTS_NAME] if not weights else [name for name in weights if name not in card.files]
    if missing:
        raise BundleError(f"lacks {missing[0]}", where=where, remedy=_AGAIN)
    if len(weights) > 1:
        raise BundleError(f"holds {' and '.join(weights)}", where=where, remedy=_AGAIN)
    for name in checked:
        if sha256_file(folder / name) != card.files[name]:
            raise BundleError(
                f"{name} is damaged: its SHA-256 is not the one in the card", where=where, remedy=_AGAIN
            )
    if GlmSpec.from_config(read_json(folder / "config.json"), where=f"{where}: config.json") != card.spec:
        raise BundleError(
            "config.json and the card describe different architectures", where=where, remedy=_AGAIN
        )
    return Bundle(folder, card, Tokenizer.load(folder))
