"""What is exported: a bundle, or the folder of a checkpoint with its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from openautoglm.core.errors import BundleError
from openautoglm.core.files import read_json
from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.models.card import CARD_NAME
from openautoglm.models.checkpoint import read_spec
from openautoglm.models.spec import GlmSpec
from openautoglm.text.jinja import chat_template
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Source:
    """A model to be exported.

    Attributes:
        folder: where its weights lie.
        name: what it is called.
        template: its chat template, in Jinja.
        bundle: the open bundle, where it is one; a bundle out of an archive lives as long as this.
    """

    folder: Path
    name: str
    spec: GlmSpec
    tokenizer: Tokenizer
    template: str
    bundle: Bundle | None = None


def open_source(model: Bundle | str | Path) -> Source:
    """Open a bundle (folder, ``.zip`` or ``.pkl``; it is verified), or the folder of a released checkpoint.

    Raises:
        BundleError: neither of them, or damaged.
        SpecError: the architecture is not supported.
        TokenizerError: the checkpoint has no tokenizer, or none of a GLM.
    """
    if isinstance(model, str | Path):
        path = Path(model)
        if path.is_dir() and not (path / CARD_NAME).is_file():
            return _of_checkpoint(path)
        model = open_bundle(path)
        name = path.stem if path.is_file() else path.resolve().name
    else:
        name = model.path.name
    name = str(model.card.recipe.get("name") or name).encode("utf-8", "replace").decode()
    return Source(model.path, name, model.spec, model.tokenizer, chat_template(model.template), model)


def _of_checkpoint(folder: Path) -> Source:
    name = folder.resolve().name.encode("utf-8", "replace").decode()
    return Source(folder, name, read_spec(folder), Tokenizer.load(folder), _template_of(folder))


def _template_of(folder: Path) -> str:
    """The checkpoint's own chat template; GLM-4's where it brings none."""
    file = folder / "chat_template.jinja"
    config = folder / "tokenizer_config.json"
    try:
        if file.is_file():
            return file.read_text(encoding="utf-8")
        found = read_json(config).get("chat_template") if config.is_file() else None
        if isinstance(found, list):  # several by their names
            found = {entry["name"]: entry["template"] for entry in found}.get("default")
        if found is not None and not found.encode():  # raises where it is no text
            found = None
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"the chat template cannot be read: {error!r}", where=str(folder),
                          remedy="fetch the checkpoint's tokenizer files again") from error
    return found or chat_template(Template(kind="glm4"))
