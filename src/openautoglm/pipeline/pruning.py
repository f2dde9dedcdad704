"""From a bundle to a pruned one that has recovered: prune, train, prune again, ... and write; resumes after a kill."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from openautoglm.compress.prune.examples import ExampleBatch, example_batches
from openautoglm.compress.prune.masks import Masks, read_masks, write_masks
from openautoglm.compress.prune.prune import Pruned, prune
from openautoglm.compress.prune.settings import PruneSettings
from openautoglm.compress.prune.shapes import smaller_spec
from openautoglm.compress.prune.structure import Cut
from openautoglm.compress.prune.weights import zero_share
from openautoglm.core import log
from openautoglm.core.errors import BundleError, CompressError
from openautoglm.core.files import fingerprint, read_json, write_json
from openautoglm.data.tokens import TokenStore
from openautoglm.models import hf
from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.models.bundle_writer import write_bundle
from openautoglm.models.spec import GlmSpec
from openautoglm.pipeline.recovery import Recovery, recovery_settings
from openautoglm.pipeline.state import locked
from openautoglm.pipeline.training import device, drive
from openautoglm.train.events import StepEvent
from openautoglm.train.settings import TrainSettings

CUT_NAME = "pruned.json"
_log = log.get(__name__)


class Learner(Protocol):
    """What trains a pruned model: `training.drive`, or something of its signature that learns from the parent too."""

    def __call__(self, model: Any, train_store: TokenStore, valid_store: TokenStore | None, settings: TrainSettings,
                 folder: Path | None, *, label: str, masks: Mapping[str, Tensor] | None = None,
                 ) -> Iterator[StepEvent]:
        """Train `model` in place, with checkpoints in `folder`, the masked weights kept at zero."""


@dataclass(frozen=True)
class Stage:
    """A model between two steps: the pruned or recovered model, and all that was cut off since the parent."""

    pruned: Pruned
    cut: Cut


def prune_bundle(parent: str | Path | Bundle, out: str | Path, settings: PruneSettings, data: Recovery | None = None, *,
                 work: str | Path | None = None, learn: Learner = drive) -> Bundle:
    """Prune a bundle, train what is left, and write it as a bundle; a stopped call goes on.

    The card's ``recipe.compress`` gets an entry: settings, shapes before and after, what was removed, how training
    went. Kept parts are listed in ``pruned.json``, masks of single weights lie in ``masks.safetensors``. Scores of the
    parent are left out: they are not this model's.

    Args:
        data: the task's tokens; None: no score may need examples and nothing is trained.
        work: folder for what is unfinished, removed at the end; ``OUT.work`` when None.
        learn: what trains, e.g. with the parent as a teacher.

    Raises:
        BundleError: the parent is no whole bundle.
        CompressError: it cannot be pruned so, or examples are needed.
        TrainError, CheckpointError: as training.
        ResourceError: another process works in the folder.
    """
    bundle = parent if isinstance(parent, Bundle) else open_bundle(parent)
    out = Path(out)
    folder = Path(work) if work is not None else out.with_name(f"{out.name}.work")
    key = fingerprint([bundle.card.files, settings.model_dump(mode="json"), data and data.fingerprint])
    finished = _finished(out, key)
    if finished is not None:
        return finished
    if data is None and settings.recover.passes:
        raise CompressError("there are no tokens to recover with", where="recover.passes",
                            remedy="give the task's tokens, or 0 passes")
    job = _Job(bundle, settings, data, folder, learn, key)
    with locked(folder):
        job.begin()
        written = job.run(out)
    shutil.rmtree(folder, ignore_errors=True)
    return written


def _finished(out: Path, key: str) -> Bundle | None:
    """The bundle in `out`, where it was made by these very arguments."""
    try:
        bundle = open_bundle(out)
    except BundleError:
        return None
    made = bundle.card.recipe.get("compress") or [{}]
    return bundle if made[-1].get("key") == key else None


class _Job:
    """One pruning with its folder: each step's model appears there as a whole."""

    def __init__(self, parent: Bundle, settings: PruneSettings, data: Recovery | None, folder: Path, learn: Learner,
                 key: str) -> None:
        self.parent, self.settings, self.data, self.folder = parent, settings, data, folder
        self.learn, self.key = learn, key

    def begin(self) -> None:
        """Make the folder ours: what another pruning left in it is removed."""
        mark = self.folder / "key.json"
        if mark.is_file() and read_json(mark) == self.key:
            return
        for path in self.folder.iterdir():
            if path.name != ".lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_json(mark, self.key)

    def run(self, out: Path) -> Bundle:
        """All steps; the last one's model goes to `out`."""
        steps = self.settings.steps
        stage = self._parent()
        for number in range(1, steps + 1):
            place = self.folder / f"step-{number}"
            kept = self._kept(place / "model")
            if kept is not None:
                stage = kept
                continue
            stage, changed = self._pruned(stage, number, place / "cut")
            last = number == steps
            passes = self.settings.recover.passes if last else self.settings.recover.step_passes
            learnt: dict[str, Any] = {}
            if passes and (changed or last) and self.data is not None:
                stage, learnt = self._recovered(stage, number, place / "train", passes)
            if last:
                break
            stage = self._through(place / "model", stage)
        return self._write(out, stage, self._facts(stage, learnt))

    def _parent(self) -> Stage:
        model = self.parent.model()
        masks = read_masks(self.parent.path, model) or {}
        return Stage(Pruned(model, self.parent.spec, masks), Cut.whole(self.parent.spec))

    def _pruned(self, stage: Stage, number: int, place: Path) -> tuple[Stage, bool]:
        """The model after this step's removal, and whether it removed anything."""
        share = self.settings.share_after(number)
        spec = stage.pruned.spec
        if self.settings.form == "structured" and smaller_spec(self.parent.spec, self.settings, share) == spec:
            return stage, False
        kept = self._kept(place)
        if kept is not None:
            return kept, True
        _log.info("prune: step %d of %d", number, self.settings.steps)
        pruned = prune(stage.pruned.model.to(device()), spec, self.settings, self._batches(spec),
                       masks=stage.pruned.masks, share=share, origin=self.parent.spec)
        found = Stage(pruned, stage.cut if pruned.cut is None else stage.cut.then(pruned.cut))
        return self._through(place, found), True

    def _batches(self, spec: GlmSpec) -> list[ExampleBatch]:
        needed = self.settings.needs_data and self.data is not None
        return example_batches(self.data.train, spec, self.settings.rows) if needed and self.data is not None else []

    def _recovered(self, stage: Stage, number: int, place: Path, passes: float) -> tuple[Stage, dict[str, Any]]:
        assert self.data is not None
        model = stage.pruned.model.to(device()).float()
        masks = {name: mask.to(device()) for name, mask in stage.pruned.masks.items()}
        settings = recovery_settings(self.settings.recover, self.parent.card, passes)
        dropouts = hf.Dropouts(model, self.settings.recover.dropout) if self.settings.recover.dropout else None
        events = self.learn(model, self.data.train, self.data.valid, settings, place,
                            label=f"recover {number}/{self.settings.steps}", masks=masks)
        last = deque(events, maxlen=1)
        if dropouts is not None:
            dropouts.remove()
        learnt = {"steps": last[0].step, "tokens": last[0].tokens, "loss": last[0].loss,
                  "valid_loss": last[0].valid_loss} if last else {}
        return replace(stage, pruned=replace(stage.pruned, model=model)), learnt

    def _through(self, place: Path, stage: Stage) -> Stage:
        """Write a stage, and go on with what is on disk, as a resumed call does."""
        self._write(place, stage, {})
        kept = self._kept(place)
        assert kept is not None
        return kept

    def _kept(self, place: Path) -> Stage | None:
        """What an earlier call wrote there, where it is whole."""
        try:
            bundle = open_bundle(place)
            model = bundle.model()
            return Stage(Pruned(model, bundle.spec, read_masks(place, model) or {}),
                         Cut.model_validate(read_json(place / CUT_NAME)))
        except (BundleError, OSError, ValueError):
            return None

    def _write(self, place: Path, stage: Stage, entry: Mapping[str, Any]) -> Bundle:
        card = self.parent.card
        made = [*card.recipe.get("compress", []), *([entry] if entry else [])]
        pruned = stage.pruned
        return write_pruned(place, pruned.model, pruned.spec, pruned.masks, stage.cut, tokenizer=self.parent.tokenizer,
                            template=self.parent.template, dtype=card.dtype,
                            card_facts={"data": card.data, "recipe": {**card.recipe, "compress": made}})

    def _facts(self, stage: Stage, learnt: Mapping[str, Any]) -> dict[str, Any]:
        return {**prune_facts(self.settings, self.parent.spec, stage.pruned, stage.cut), "recovered": dict(learnt),
                "key": self.key}


def prune_facts(settings: PruneSettings, origin: GlmSpec, pruned: Pruned, cut: Cut) -> dict[str, Any]:
    """What the card says of a pruning: settings, shapes before and after, what is gone."""
    def shape(spec: GlmSpec) -> dict[str, int]:
        names = ("layers", "heads", "kv_heads", "ffn_size")
        return {**{name: getattr(spec, name) for name in names}, "parameters": spec.parameters}

    facts: dict[str, Any] = {"method": "prune", "settings": settings.model_dump(mode="json"),
                             "before": shape(origin), "after": shape(pruned.spec)}
    if settings.form == "structured":
        return facts | {"removed": cut.removed(origin)}
    return facts | {"zeros": round(zero_share(pruned.masks), 6)}


def write_pruned(place: Path, model: Any, spec: GlmSpec, masks: Masks, cut: Cut, **rest: Any) -> Bundle:
    """Write a pruned model as a bundle: weights, what was kept of the parent, masks; `rest` as `write_bundle`."""
    def more(folder: Path) -> None:
        write_json(folder / CUT_NAME, cut.model_dump(mode="json"))
        if masks:
            write_masks(folder, masks)

    return write_bundle(place, model=model, spec=spec, more=more, **rest)
