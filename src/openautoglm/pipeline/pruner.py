"""Pruning as a library: a model in memory, a checkpoint or a bundle, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from openautoglm.compress.prune.settings import PruneSettings
from openautoglm.core.errors import AutoGLMError, CompressError
from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.models.card import CARD_NAME
from openautoglm.models.spec import GlmSpec
from openautoglm.pipeline.recovery import Recovery
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from openautoglm.compress.prune.masks import Masks
    from openautoglm.compress.prune.structure import Cut

_ALIASES = {"magnitude": ("l1", "unstructured"), "sparsegpt": ("sparsegpt", "unstructured")}


@dataclass(frozen=True)
class _Whole:
    """What is to be pruned; without tokenizer and template where only a model is known."""

    model: Any
    spec: GlmSpec
    masks: Masks
    tokenizer: Tokenizer | None = None
    template: Template | None = None
    bundle: Bundle | None = None


@dataclass(frozen=True)
class PrunedModel:
    """A pruned model, not trained since.

    Attributes:
        spec: its architecture.
        model: transformers' class, in evaluation mode.
        facts: settings, shapes before and after, what was removed.
        masks: of the single weights that stay, bool by name; empty where none were taken out.
    """

    spec: GlmSpec
    model: Any
    facts: dict[str, Any]
    masks: Masks
    cut: Cut
    tokenizer: Tokenizer | None
    template: Template | None
    parent: Bundle | None

    def save(self, folder: str | Path, *, tokenizer: Tokenizer | None = None,
             template: Template | None = None) -> Bundle:
        """Write it as a bundle.

        Args:
            tokenizer, template: where the model that was pruned came without.

        Raises:
            CompressError: there is no tokenizer.
            BundleError: the tokenizer has more ids than the model.
        """
        from openautoglm.pipeline.pruning import write_pruned

        tokenizer = tokenizer or self.tokenizer
        if tokenizer is None:
            raise CompressError("a bundle needs a tokenizer, and the model came without", where="tokenizer",
                                remedy="give save(..., tokenizer=Tokenizer.load(folder))")
        card = self.parent.card if self.parent else None
        recipe = dict(card.recipe) if card else {}
        recipe["compress"] = [*recipe.get("compress", []), self.facts]
        stored = "bfloat16" if str(next(self.model.parameters()).dtype) == "torch.bfloat16" else "float32"
        return write_pruned(
            Path(folder), self.model, self.spec, self.masks, self.cut, tokenizer=tokenizer,
            template=template or self.template or Template(kind="glm4"), dtype=card.dtype if card else stored,
            card_facts={"data": card.data if card else None, "recipe": recipe})


class Pruner:
    """Prunes a model.

    ::

        pruned = Pruner("bundle", sparsity=0.4, method="l1").apply()
        print(pruned.spec, pruned.facts["removed"])
        pruned.save("smaller")

        Pruner("bundle", sparsity=0.4, method="gradient", data="runs/task").build("smaller")  # with training

    Args:
        model_or_bundle: the path of a bundle or of a checkpoint, an open `Bundle`, or a model of transformers.
        sparsity: share to remove.
        method: ``l1``, ``l2``, ``wanda``, ``gradient``, ``random``; ``magnitude`` and ``sparsegpt`` take out single
            weights.
        data: what importance is measured on, and what `build` trains on: a run folder, a token store or its folder.
        options: further fields of `PruneSettings` (``form``, ``layers``, ``steps``, ``recover``, ...).

    Raises:
        CompressError: an option is unknown or out of its range, or the model is no GLM.
        BundleError, SpecError: the path holds no bundle and no checkpoint that we know.
    """

    def __init__(self, model_or_bundle: Any, sparsity: float = 0.4, method: str = "l1", *, data: Any = None,
                 **options: Any) -> None:
        self.settings = _settings(sparsity, method, options)
        self._data = None if data is None else Recovery.of(data)
        self._given = model_or_bundle
        self._whole = _open(model_or_bundle)

    def apply(self) -> PrunedModel:
        """Prune at once, without training; the model given stays as it is.

        Raises:
            CompressError: nothing would be left or nothing removed, or the method needs `data`.
        """
        from openautoglm.compress.prune.examples import example_batches
        from openautoglm.compress.prune.prune import prune
        from openautoglm.compress.prune.structure import Cut
        from openautoglm.pipeline.pruning import prune_facts

        whole, batches = self._whole, []
        if self._data is not None and self.settings.needs_data:
            batches = example_batches(self._data.train, whole.spec, self.settings.rows)
        pruned = prune(whole.model, whole.spec, self.settings, batches, masks=whole.masks)
        cut = pruned.cut or Cut.whole(whole.spec)
        return PrunedModel(pruned.spec, pruned.model, prune_facts(self.settings, whole.spec, pruned, cut), pruned.masks,
                           cut, whole.tokenizer, whole.template, whole.bundle)

    def build(self, folder: str | Path) -> Bundle:
        """Prune in the steps that the settings ask for, train after each, and write a bundle; a stopped call goes on.

        Raises:
            CompressError: as `apply`; it was no bundle that was given; there is no `data` to train on.
            TrainError, CheckpointError, ResourceError: as training.
        """
        from openautoglm.pipeline.pruning import prune_bundle

        if self._whole.bundle is None:
            raise CompressError("only a bundle can be built from", where=str(type(self._given).__name__),
                                remedy="save what `apply` returns, and give that bundle")
        return prune_bundle(self._whole.bundle, folder, self.settings, self._data)


def _settings(sparsity: float, method: str, options: dict[str, Any]) -> PruneSettings:
    score, form = _ALIASES.get(method, (method, "structured"))
    try:
        return PruneSettings.model_validate({"score": score, "form": form, "sparsity": sparsity, **options})
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}".removeprefix(": ")
                           for item in error.errors())
        raise CompressError(faults.replace("Value error, ", ""), remedy="change these options") from error


def _open(given: Any) -> _Whole:
    from openautoglm.models import hf

    if isinstance(given, str | Path) and not (Path(given).is_dir() and not (Path(given) / CARD_NAME).is_file()):
        given = open_bundle(given)
    if isinstance(given, Bundle):
        from openautoglm.compress.prune.masks import read_masks

        model = given.model()
        return _Whole(model, given.spec, read_masks(given.path, model) or {}, given.tokenizer, given.template, given)
    if isinstance(given, str | Path):
        model, spec = hf.load(given)
        return _Whole(model, spec, {}, _tokenizer(Path(given)))
    if type(given).__name__ not in {name for _, name in hf.CLASSES.values()}:
        raise CompressError(f"a {type(given).__name__} is no model that can be pruned", where="model_or_bundle",
                            remedy="give a bundle, a checkpoint's folder, a GlmForCausalLM or a Glm4ForCausalLM")
    return _Whole(given, GlmSpec.from_config(given.config.to_dict(), where="config"), {})


def _tokenizer(folder: Path) -> Tokenizer | None:
    try:
        return Tokenizer.load(folder)
    except AutoGLMError:
        return None
