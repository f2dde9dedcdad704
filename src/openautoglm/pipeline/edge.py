"""What an edge model takes from a bundle beside its program: how records become prompts."""

from __future__ import annotations

from openautoglm.data.settings import DataSettings, template_columns
from openautoglm.edge.manifest import Record
from openautoglm.models.bundle import Bundle


def record_of(bundle: Bundle) -> Record:
    """How the columns that a bundle was trained on become its prompts; nothing where they do not."""
    record = bundle.card.recipe.get("record")
    if not record:
        return Record()
    data = DataSettings.model_validate({**record, "train": ("-",)})
    if data.source is not None:
        return Record((("", data.source),), data.allow_empty)
    return Record(tuple(template_columns(data.template or "")), data.allow_empty)
