"""One step of a recipe: from a bundle to the next."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openautoglm.compress.prune.settings import PruneSettings
from openautoglm.core.extras import require
from openautoglm.core.files import sha256_file, write_json
from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.models.card import CARD_NAME, Card
from openautoglm.pipeline.compressing.material import Material
from openautoglm.pipeline.compressing.plain import copy_files
from openautoglm.pipeline.compressing.recipe import QUANTISING, DistilStep, KvSettings, MergeLoraSettings, Step


@dataclass(frozen=True)
class Around:
    """What a step works with beside the bundle.

    Attributes:
        calibration: records that are shown to methods that look at data, at most.
        memory_limit: bytes of the step itself; None: what is free.
        here: where relative paths of the recipe begin.
    """

    material: Material
    calibration: int
    memory_limit: int | None
    here: Path


def apply_step(step: Step, bundle: Bundle, out: Path, around: Around) -> Bundle:
    """Do one step and write its bundle to `out`; a step that was killed goes on.

    Raises:
        AutoGLMError: as the rooms that do it.
    """
    if isinstance(step, QUANTISING):
        return _quantised(step, bundle, out, around)
    if isinstance(step, PruneSettings):
        return _pruned(step, bundle, out, around)
    if isinstance(step, DistilStep):
        return _distilled(step, bundle, out, around)
    if isinstance(step, KvSettings):
        return _with_card(bundle, out, {"engine": {**bundle.card.recipe.get("engine", {}), "cache": step.format}})
    return _merged(step, bundle, out, around)


def _quantised(step: Any, bundle: Bundle, out: Path, around: Around) -> Bundle:
    require("torch", "train")
    from openautoglm.compress.quantise import quantise_checkpoint, tensors_of
    from openautoglm.models.quantised_bundle import write_quantised_bundle

    folder = out.with_name(f"{out.name}.work")
    folder.mkdir(parents=True, exist_ok=True)
    ids = around.material.calibration(bundle, around.calibration)
    facts = quantise_checkpoint(bundle.path, folder / "weights", step, ids, memory_limit=around.memory_limit,
                                workdir=folder / "layers")
    write_quantised_bundle(out, bundle, tensors_of(folder / "weights"), recipe=_noted(bundle, {
        **step.model_dump(mode="json"), "average_bits": facts.average_bits, "seconds": round(facts.seconds, 1),
        "peak_bytes": facts.peak_bytes, "calibration_tokens": facts.calibration_tokens}))
    shutil.rmtree(folder, ignore_errors=True)
    return open_bundle(out)


def _pruned(step: PruneSettings, bundle: Bundle, out: Path, around: Around) -> Bundle:
    require("torch", "train")
    from openautoglm.data.tokens import store_from_ids
    from openautoglm.pipeline.pruning import prune_bundle
    from openautoglm.pipeline.recovery import Recovery

    tokens = around.material.tokens
    if tokens is None and step.needs_data:
        tokens = Recovery(store_from_ids((ids, 1) for ids in around.material.calibration(bundle, around.calibration)))
    return prune_bundle(bundle, out, step, tokens)


def _distilled(step: DistilStep, bundle: Bundle, out: Path, around: Around) -> Bundle:
    run = around.material.run
    assert run is not None
    require("torch", "train")
    from openautoglm.pipeline.distil import DistilFacts, distil_bundle
    from openautoglm.pipeline.recovery import training_of

    train = training_of(bundle.card)
    given = {"passes": step.passes, "lr": step.lr}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if "passes" in changes:
        changes |= {"tokens": None, "minutes": None}
    folder = out.with_name(f"{out.name}.work")
    folder.mkdir(parents=True, exist_ok=True)
    entry = {**step.model_dump(mode="json"), "before": bundle.spec.parameters}
    data = run / "data"
    made = distil_bundle(bundle.path, out, step, DistilFacts(
        folder, data / "train.jsonl", data / "valid.jsonl", train.model_copy(update=changes), step.dropout,
        _noted(bundle, entry)))
    shutil.rmtree(folder, ignore_errors=True)
    return made


def _merged(step: MergeLoraSettings, bundle: Bundle, out: Path, around: Around) -> Bundle:
    adapter = around.here / Path(step.adapter).expanduser()
    require("torch", "train")
    from openautoglm.models.bundle_writer import write_bundle
    from openautoglm.train.lora import load_lora, merge_lora

    model = merge_lora(load_lora(bundle.model(), adapter))
    card = bundle.card
    write_bundle(out, model=model, spec=bundle.spec, tokenizer=bundle.tokenizer, template=bundle.template,
                 dtype=card.dtype, card_facts={"data": card.data, "recipe": {**card.recipe, **_noted(
                     bundle, {"method": "merge-lora", "adapter": adapter.name})}})
    return open_bundle(out)


def _noted(bundle: Bundle, entry: dict[str, Any]) -> dict[str, Any]:
    """The list of what was done to a bundle, with one entry more."""
    return {"compress": [*bundle.card.recipe.get("compress", []), entry]}


def _with_card(bundle: Bundle, out: Path, recipe: dict[str, Any]) -> Bundle:
    """A copy of a bundle whose card's recipe has further keys."""
    from openautoglm.core.files import atomic_folder

    entry = {"method": "kv", "format": recipe["engine"]["cache"]}
    with atomic_folder(out) as part:
        copy_files(bundle, part)
        write_json(part / CARD_NAME, with_recipe(bundle.card, {**recipe, **_noted(bundle, entry)}, part).model_dump(
            mode="json"))
    return open_bundle(out)


def with_recipe(card: Card, recipe: dict[str, Any], folder: Path) -> Card:
    """A card of the files in a folder, its recipe extended."""
    files = {file.name: sha256_file(file) for file in sorted(folder.iterdir()) if file.name != CARD_NAME}
    return card.model_copy(update={"recipe": {**card.recipe, **recipe}, "files": files})

