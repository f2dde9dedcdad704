"""Stage: the finished bundle, with its scores and its recommended decoding, and the copies asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openautoglm.core import log
from openautoglm.core.errors import GraphError, ResourceError
from openautoglm.core.files import read_json, sha256_file, write_json
from openautoglm.models.card import CARD_NAME, read_card
from openautoglm.models.checkpoint import read_spec
from openautoglm.pipeline.context import Run
from openautoglm.pipeline.sections import PackedTask
from openautoglm.pipeline.units import bytes_text

_log = log.get(__name__)
_SHAPE = {"source", "target", "template", "messages", "text", "fields"}


class ExportStage:
    """Writes the bundle; each file of it is whole or absent."""

    name = "export"
    needs = ("self_distill", "evaluate")
    format = 2

    def inputs(self, run: Run) -> Any:
        """Where copies go and what they are copies of, what is packed, and the name."""
        smaller = {"compressed": run.state.begun("compress")} if run.task.compress else {}
        return {**run.task.export.model_dump(mode="json"), "name": run.task.name, **smaller}

    def results(self, run: Run) -> Sequence[Path]:
        """The bundle and its copies."""
        return (run.bundle / "autoglm.json", *(run.base / path for path in run.task.export.to))

    def run(self, run: Run) -> dict[str, Any]:
        """Write the bundle and its copies; what is packed is packed of the compressed bundle, too."""
        from openautoglm.export.export import export_model
        from openautoglm.models.bundle import open_bundle
        from openautoglm.models.bundle_writer import write_bundle

        trained = open_bundle(run.model)
        bundle = write_bundle(run.bundle, model=trained.model(), spec=trained.spec, tokenizer=trained.tokenizer,
                              template=trained.template, dtype=trained.card.dtype, card_facts=card_facts(run),
                              more=lambda folder: pack_weights(folder, run.task.export.packed))
        if run.result != run.bundle:
            pack_compressed(run.result, run.task.export.packed)
        for path in run.task.export.to:
            written = export_model(bundle if run.result == run.bundle else run.result, run.base / path)
            _log.info("exported %s, of the %s bundle", written.path,
                      "trained" if run.result == run.bundle else "compressed")
            for note in written.notes:
                _log.warning("%s: %s", written.path.name, note)
        return {"bundle": str(run.bundle),
                "files": {name: (run.bundle / name).stat().st_size for name in bundle.card.files}}

    def wipe(self, run: Run, *, fresh: bool) -> Sequence[Path]:
        """The bundle; copies outside the run folder are replaced, not removed."""
        return (run.bundle,)


def pack_weights(folder: Path, asked: Sequence[PackedTask]) -> list[Path]:
    """Write the packed files that are asked for into a bundle's folder, as far as they are of use to this model.

    Where there is no native runtime, or a recipe does not fit the model, a notice says so: the bundle is whole without.
    """
    from openautoglm.engine.open import ProgramSettings, pack, why_not_native

    if asked and (missing := why_not_native(read_spec(folder))):
        _log.warning("weights are not packed: %s", missing)
        return []
    written = []
    for each in asked:
        try:
            path = pack(folder, ProgramSettings(quantise=each.recipe()))
        except (GraphError, ResourceError) as error:
            _log.warning("weights are not packed as %s: %s", each.format, error)
            continue
        _log.info("packed weights: %s, %s", path.name, bytes_text(path.stat().st_size))
        written.append(path)
    return written


def pack_compressed(folder: Path, asked: Sequence[PackedTask]) -> None:
    """Pack the weights of a bundle that is written already, in place of what was packed before; its card names them.

    Bits that a compression has chosen are packed as they are, whatever is asked.
    """
    from openautoglm.models.bundle import is_packed
    from openautoglm.models.quantised_file import QUANTISED_NAME

    for file in folder.iterdir():
        if is_packed(file.name):
            file.unlink()
    if (folder / QUANTISED_NAME).is_file():
        asked = [PackedTask()] if asked else []
    packed = {path.name: sha256_file(path) for path in pack_weights(folder, asked)}
    card = read_card(folder)
    files = {name: digest for name, digest in card.files.items() if not is_packed(name)}
    write_json(folder / CARD_NAME, card.model_copy(update={"files": {**files, **packed}}).model_dump(mode="json"))


def card_facts(run: Run) -> dict[str, Any]:
    """What the card says beside the architecture: data, scores on each split, and how to use the model."""
    from openautoglm.pipeline.learn import data_fingerprint
    from openautoglm.pipeline.stages.train import plan_and_material

    scores = read_json(run.scores_file)
    plan, _ = plan_and_material(run)
    chosen = scores["chosen"]
    return {
        "data": data_fingerprint(run),
        "scores": {split: by[chosen]["scores"] for split, by in scores["splits"].items()},
        "recipe": {"name": run.task.name, "seed": run.task.seed, "decoding": scores["decodings"][chosen],
                   "decoding_name": chosen, "record": run.task.data.model_dump(mode="json", include=_SHAPE),
                   "clean": run.task.clean.model_dump(mode="json", exclude={"workers"}),
                   **({"distill": run.task.distill.model_dump(mode="json")} if run.task.distill.teacher else {}),
                   "self_distill": run.task.self_distill.model_dump(mode="json"),
                   "plan": plan.model_dump(mode="json", exclude={"reasons"}),
                   "start": run.task.model.model_dump(mode="json", include={"checkpoint", "tune", "lora"})}}
