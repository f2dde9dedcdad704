"""The card of a bundle (``autoglm.json``): what the bundle says of itself."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from openautoglm.core.errors import BundleError
from openautoglm.core.files import read_json, sha256_file, write_json
from openautoglm.core.settings import Settings
from openautoglm.models.spec import GlmSpec
from openautoglm.text.template import Template

CARD_NAME = "autoglm.json"
FORMAT = 1


class Card(Settings):
    """What a bundle says of itself.

    Attributes:
        format: version of this layout; a reader refuses newer ones.
        spec: the architecture.
        template: how texts become prompts.
        dtype: of the stored weights.
        tokenizer: fingerprint of the tokenizer.
        data: fingerprint of the training data.
        scores: metric names and values, as measured.
        recipe: settings that made the model.
        versions: of Python and the libraries that made it.
        files: name and SHA-256 of every other file.
        created: time of writing, UTC, ISO 8601.
    """

    format: int = FORMAT
    spec: GlmSpec
    template: Template
    dtype: Literal["float32", "bfloat16"] = "float32"
    tokenizer: str
    data: str | None = None
    scores: dict[str, Any] = Field(default_factory=dict)
    recipe: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    created: str = Field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    )

    @field_validator("files")
    @classmethod
    def _plain_names(cls, files: dict[str, str]) -> dict[str, str]:
        foreign = [name for name in files if not is_plain_name(name)]
        if foreign:
            raise ValueError(f"{foreign[0]!r} is not a plain file name")
        return files


def is_plain_name(name: str) -> bool:
    """Tell whether `name` can be a file of a bundle: no folder, no drive, not hidden."""
    return (
        bool(name)
        and not name.startswith(".")
        and not any(c in name for c in "/\\:\0")
        and name.isprintable()
    )


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that shape a model."""
    names = ("openautoglm", "torch", "transformers", "tokenizers")
    found = {
        distribution.metadata["Name"]: distribution.version
        for name in names
        for distribution in importlib.metadata.distributions(name=name)
    }
    return {"python": platform.python_version(), **found}


def read_card(folder: Path) -> Card:
    """Read and validate the card of the bundle in `folder`.

    Raises:
        BundleError: there is no card, it is damaged, or its format is newer than ours.
    """
    path = folder / CARD_NAME
    if not path.is_file():
        raise BundleError(
            f"is not a bundle: {CARD_NAME} is missing",
            where=str(folder),
            remedy="give a folder, .zip or .pkl written by `export`",
        )
    try:
        content = read_json(path)
        found = content["format"] if isinstance(content, dict) else None
        if isinstance(found, int) and found > FORMAT:
            raise BundleError(
                f"has format {found}, this version reads up to {FORMAT}",
                where=str(path),
                remedy="install a newer openautoglm",
            )
        return Card.model_validate(content)
    except (OSError, ValueError, KeyError, RecursionError, ValidationError) as error:
        raise BundleError(
            f"is damaged: {error}", where=str(path), remedy="copy or export the bundle again"
        ) from error


def note_file(folder: Path, name: str) -> None:
    """Put the hash of a file that was written into a bundle on its card; a folder without a card is left alone.

    Raises:
        BundleError: as `read_card`.
    """
    if (folder / CARD_NAME).is_file():
        card = read_card(folder)
        files = {**card.files, name: sha256_file(folder / name)}
        write_json(folder / CARD_NAME, card.model_copy(update={"files": files}).model_dump(mode="json"))
