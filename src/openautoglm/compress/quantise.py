"""From a checkpoint to ``quantised.safetensors``, layer by layer, with the memory of one layer and its calibration."""

from __future__ import annotations

import itertools
import resource
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import torch
from torch import Tensor

from openautoglm.compress.apply import Base, quantise_matrix, shared_columns, write_layer
from openautoglm.compress.calibrate import Calibration, States, choose
from openautoglm.compress.facts import MatrixFacts, QuantisationFacts
from openautoglm.compress.grid import Coded, Form
from openautoglm.compress.mixed import CHOICES, COPIES, Place, allot, sensitivities
from openautoglm.compress.plan import MemoryPlan, plan
from openautoglm.compress.resume import Progressed, work_folder
from openautoglm.compress.settings import AwqSettings, Bits, GptqSettings, MixedSettings, RtnSettings
from openautoglm.compress.source import Source, prefix
from openautoglm.compress.statistics import Statistics, output_error, some_rows, weight_error
from openautoglm.compress.tables import embedding_bits, embedding_rows, write_tables
from openautoglm.compress.walk import Walk, embed, norms_of
from openautoglm.core.errors import GraphError, TaskError
from openautoglm.core.files import fingerprint
from openautoglm.core.progress import Progress, progress
from openautoglm.models.quantised import Bf16, Float32, QuantisedMatrix
from openautoglm.models.quantised_file import QUANTISED_NAME, QuantisedWriter, open_quantised
from openautoglm.runtime.quantised import groups_of

_FORM_VERSION = 1
_ERROR_ROWS = 1024
Method = RtnSettings | GptqSettings | AwqSettings | MixedSettings


def quantise_checkpoint(source: Path, out: Path, method: Method, calibration: Sequence[Sequence[int]] | None, *,
                        memory_limit: int | None = None, workdir: Path | None = None) -> QuantisationFacts:
    """Quantise a checkpoint or bundle, layer by layer.

    Args:
        source: the folder: config.json and model*.safetensors in fp32, bf16 or fp16, one file or several.
        out: the file to write, or a folder that ``quantised.safetensors`` is written into.
        method: one of `methods.QuantisationMethod`.
        calibration: token ids of texts as the model will see them; None for plain round to nearest.
        memory_limit: bytes that the process may hold; None: most of what is free. It changes no value: where the
            calibration's states do not fit, they are kept on disk.
        workdir: where finished layers and states are kept, so that a run that was killed goes on at the layer it was
            at; it must be on a disk of some space, and holds nothing afterwards. None: nothing outlives the run.

    Returns:
        Bits and errors of each matrix, time and memory.

    Raises:
        SpecError: the architecture is not supported.
        BundleError: the source is damaged, not finite, or quantised already.
        DataError: the method needs calibration and there is none, or its ids are not the model's.
        TaskError: a group does not divide the rows of a matrix, or an average of bits cannot be reached.
        ResourceError: it does not fit into `memory_limit`; the least limit is named.
        CheckpointError: `workdir` is damaged.
    """
    opened = Source(source)
    out = out / QUANTISED_NAME if out.is_dir() else out
    base = method.base if isinstance(method, MixedSettings) else method
    _check_groups(opened, base)
    shown = _shown(opened, method, base, calibration)
    walked = shown if not isinstance(base, RtnSettings) else None
    needed = plan(opened.spec, base, walked, memory_limit)
    print_of = fingerprint([_FORM_VERSION, opened.fingerprint(), method.model_dump(mode="json"),
                            shown.fingerprint() if shown else None])
    with work_folder(workdir, out) as folder, torch.no_grad():
        done = Progressed(folder, print_of, kept=workdir is not None)
        job = _Job(opened, base, walked, done, needed)
        if isinstance(method, MixedSettings):
            assert shown is not None
            _mix(job, method, shown, memory_limit)
        matrices = job.run(out)
        seconds = job.seconds
        done.clear()
    return QuantisationFacts(
        method=method.model_dump(mode="json"), matrices=matrices, sensitivity=done.state.get("sensitivity", {}),
        calibration_tokens=shown.tokens if shown else 0, seconds=seconds, peak_bytes=_peak_bytes(),
        file_bytes=out.stat().st_size)


def tensors_of(file: Path) -> Iterator[tuple[str, QuantisedMatrix | Float32 | Bf16]]:
    """Names and values of a quantised file, one after the other; `write_quantised_bundle` takes them.

    Raises:
        BundleError: the file is damaged.
    """
    opened = open_quantised(file)
    for name in opened.names:
        yield name, opened.read(name) if name in opened.forms else opened.entry(name).read()


@dataclass
class _Job:
    """One quantisation on its way.

    Attributes:
        bits: of each place; those of `base` where it is not named.
        started: when this run began, less the seconds of those before.
    """

    source: Source
    base: Base
    calibration: Calibration | None
    done: Progressed
    plan: MemoryPlan
    bits: dict[Place, Bits] = field(default_factory=dict)
    started: float = 0.0

    def __post_init__(self) -> None:
        self.started = monotonic() - float(self.done.state["seconds"])

    @property
    def seconds(self) -> float:
        """Seconds of all runs so far."""
        return monotonic() - self.started

    def form(self, layer: int, slot: str) -> Form:
        """The form of a place's matrix."""
        return Form(self.bits.get((layer, slot), self.base.bits), self.base.group, self.base.symmetric)

    def run(self, out: Path) -> tuple[MatrixFacts, ...]:
        """Do the layers that are left, then embedding and head, and put the file together."""
        layers = self.source.spec.layers
        with progress(layers + 1, f"quantise ({self.base.method})", "layers", done=self.done.layers) as bar:
            walk = self._walk()
            for layer in range(self.done.layers, layers):
                self._layer(layer, walk, bar)
            with QuantisedWriter(out) as writer:
                for layer in range(layers):
                    for name, value in tensors_of(self.done.part(layer)):
                        writer.add(name, value)
                seen = None if walk is None else lambda: walk.normed(self.source)
                tables = write_tables(writer, self.source, self.base, seen)
            bar.advance(1)
        return (*(MatrixFacts(**facts) for facts in self.done.state["matrices"]), *tables)

    def room(self, name: str, calibration: Calibration, width: int) -> States:
        """Room for states, in memory or on disk as planned."""
        return States(calibration.tokens, width, self.done.folder / f"walk-{name}.bin" if self.plan.on_disk else None)

    def _walk(self) -> Walk | None:
        if self.calibration is None:
            return None
        spec = self.source.spec
        states = self.room("states", self.calibration, spec.hidden_size)
        if self.done.layers:
            self.done.restore(states)
        else:
            ids = torch.tensor([token for sequence in self.calibration.sequences for token in sequence])
            embed(self.source, embedding_rows(self.source, self.base), states, ids)
        attended = self.room("attended", self.calibration, spec.query_size)
        return Walk(spec, states, attended, self.calibration.batches())

    def _layer(self, layer: int, walk: Walk | None, bar: Progress) -> None:
        outcome, facts = dict[str, Coded](), list[MatrixFacts]()
        follow = not isinstance(self.base, RtnSettings) and self.base.inputs == "quantised"

        def treat(slot: str, seen: Statistics | None) -> Tensor:
            weight = self.source.matrix(layer, slot)
            name = f"{prefix(layer)}{'self_attn.qkv_proj' if slot == 'qkv' else self.source.slots[slot].tensors[0][0]}"
            form = self.form(layer, slot)
            coded = quantise_matrix(weight, seen, form, self.base, name, shared_columns(self.source.spec, slot))
            effective = coded.effective()
            outcome[slot] = coded
            facts.append(_facts(name, layer, form, weight, effective, seen))
            bar.update(error=facts[-1].weight_error if seen is None else facts[-1].output_error or 0.0)
            return effective if follow else weight

        if walk is None:
            for slot in self.source.slots:
                treat(slot, None)
        else:
            walk.layer(norms_of(self.source, layer), treat)
        with QuantisedWriter(self.done.part(layer)) as writer:
            write_layer(writer, self.source, layer, outcome)
        self.done.finish_layer(walk.states if walk else None, self.seconds,
                               [fact.model_dump(mode="json") for fact in facts])
        bar.advance(1)


def _mix(job: _Job, method: MixedSettings, shown: Calibration, memory_limit: int | None) -> None:
    """Say which matrices get how many bits; each layer is measured once and kept in the work folder."""
    source, state = job.source, job.done.state
    places = [(layer, slot) for layer in range(source.spec.layers) for slot in source.slots]
    known: dict[str, dict[str, float]] = state.setdefault("sensitivity", {})
    if len(known) < len(places):
        few, numbers = shown.first(method.tokens), itertools.count()
        job.plan = plan(source.spec, job.base, few, memory_limit, copies=COPIES)
        for found in sensitivities(source, few, job.base, lambda: job.room(
                f"variant-{next(numbers)}", few, source.spec.hidden_size), first=len(known) // len(source.slots)):
            known.update({f"{layer}.{slot}": {str(bits): value for bits, value in values.items()}
                          for (layer, slot), values in found.items()})
            state["seconds"] = job.seconds
            job.done.save()
        job.plan = plan(source.spec, job.base, job.calibration, memory_limit)
    measured: dict[Place, dict[Bits, float]] = {
        (layer, slot): {bits: float(known[f"{layer}.{slot}"][str(bits)]) for bits in CHOICES}
        for layer, slot in places}
    stored = {place: Form(4, job.base.group, job.base.symmetric).stored_bits(source.slots[place[1]].columns)
              for place in places}
    job.bits = allot(measured, {place: source.slots[place[1]].weights for place in places}, stored,
                     method.average_bits)


def _shown(source: Source, method: Method, base: Base, calibration: Sequence[Sequence[int]] | None
           ) -> Calibration | None:
    """The sequences that the method looks at; None for plain round to nearest."""
    if not isinstance(base, RtnSettings):
        return choose(calibration, base.calibration, source.spec)
    return choose(calibration, method.calibration, source.spec) if isinstance(method, MixedSettings) else None


def _check_groups(source: Source, base: Base) -> None:
    quantised = embedding_bits(source, base) in (4, 8) or base.head_bits in (4, 8)
    wanted: dict[str, int] = {slot.tensors[0][0]: slot.columns for slot in source.slots.values()}
    wanted |= {"the embedding or the head": source.spec.hidden_size} if quantised else {}
    for name, columns in wanted.items():
        try:
            groups_of(columns, base.group)
        except GraphError as error:
            fitting = [group for group in (128, 64, 32) if all(each % group == 0 for each in wanted.values())]
            raise TaskError(f"groups of {base.group} do not divide the {columns} columns of {name}", where="group",
                            remedy=f"choose one of {', '.join(map(str, [*fitting, 0]))}") from error


def _facts(name: str, layer: int, form: Form, weight: Tensor, effective: Tensor, seen: Statistics | None
           ) -> MatrixFacts:
    rows = some_rows(weight, _ERROR_ROWS)
    shown = None if seen is None else output_error(weight[rows], effective[rows], seen.hessian)
    return MatrixFacts(name=name, layer=layer, bits=form.bits, group=form.group, weights=weight.numel(),
                       stored_bits=form.stored_bits(weight.shape[1]), weight_error=weight_error(weight, effective),
                       output_error=shown)


def _peak_bytes() -> int:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10
