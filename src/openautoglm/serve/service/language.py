"""What texts become ids by: tokenizer, template, and what the card remembers of records and decoding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.models.card import CARD_NAME
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Language:
    """How one model speaks.

    Attributes:
        recipe: of the card: ``record`` says how records become prompts, ``decoding`` is recommended.
        bundle: keeps an unpacked archive on disk; None for a checkpoint without a card.
    """

    template: Template
    tokenizer: Tokenizer
    recipe: Mapping[str, Any] = field(default_factory=dict)
    bundle: Bundle | None = None

    @classmethod
    def of(cls, bundle: Bundle) -> Language:
        """That of a bundle."""
        return cls(bundle.template, bundle.tokenizer, bundle.card.recipe, bundle)


def open_language(path: str | Path) -> tuple[Language, Path]:
    """Open that of a bundle, or of a released checkpoint (a folder without our card), and the folder of its files.

    Raises:
        BundleError, TokenizerError: it cannot be opened.
    """
    path = Path(path)
    if path.is_dir() and not (path / CARD_NAME).is_file():
        return Language(Template(kind="glm4"), Tokenizer.load(path)), path
    bundle = open_bundle(path)
    return Language.of(bundle), bundle.path
