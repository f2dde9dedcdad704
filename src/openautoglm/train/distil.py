"""Distillation: a student learns from a teacher's distribution and from its hidden states, beside the targets.

Sequence-level distillation, where the teacher writes the targets, changes the data and not the loss: see
`pipeline.distil`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from openautoglm.core.errors import TrainError
from openautoglm.data.pack import Batch
from openautoglm.data.tokens import TokenStore
from openautoglm.train import precision
from openautoglm.train.distil_loss import Top, Whole, distil_sums, top_shares
from openautoglm.train.distil_settings import DistilLoss
from openautoglm.train.forward import EAGER, Halves, Inputs, Start, needed_hidden, to_inputs, walkable
from openautoglm.train.freeze import bare
from openautoglm.train.rows import RowFiles, TargetRows

LOGITS = "teacher-logits"


class Distil:
    """The goal of a student's training.

    Args:
        teacher: transformers' class, not wrapped; it is put into evaluation mode, and nothing of it learns.
        student: the model that will be trained.
        name: identifies the teacher; a checkpoint holds it.
        smoothing: label smoothing of the cross entropy.

    Raises:
        TrainError: a pair of layers that does not exist, or models that cannot be compared.
    """

    def __init__(self, teacher: Any, student: Any, settings: DistilLoss, *, name: str, smoothing: float,
                 seed: int) -> None:
        self.teacher, self._settings, self._smoothing = teacher.eval().requires_grad_(False), settings, smoothing
        base = bare(student)
        self._pairs = _pairs(settings, base, teacher) if settings.features else []
        self.module = _projections(self._pairs, base, teacher, seed).to(next(base.parameters()).device) \
            if self._pairs else None
        self.identity: Mapping[str, Any] = {
            "teacher": name, "distillation": settings.model_dump(mode="json", exclude={"cache_gib"})}
        self._name = name
        self._top: tuple[RowFiles, TargetRows] | None = None

    def prepare(self, store: TokenStore, folder: Path | None, number_format: Any) -> None:
        """With `top_k`: let the teacher run over the store, once; a killed call goes on.

        Raises:
            TrainError: there is no folder to keep it in.
            ResourceError: the file would be larger than its bound or the free disk.
        """
        s = self._settings
        if s.top_k is None or not s.alpha:
            return
        if folder is None:
            raise TrainError("the teacher's probabilities need a folder", where="distill.top_k",
                             remedy="give training a folder, or leave top_k out")
        device, rows = next(self.teacher.parameters()).device, TargetRows(store)
        k = min(s.top_k, self.teacher.config.vocab_size)
        identity = {"teacher": self._name, "store": store.fingerprint, "precision": number_format,
                    "temperature": s.temperature}
        files = RowFiles(folder / LOGITS, identity,
                         {"shares": (k, np.float16), "ids": (k, np.int32), "rest": (1, np.float32)}, rows.count,
                         limit_bytes=s.cache_gib * 2**30, where="distill.cache_gib")

        def compute(batch: Batch) -> Mapping[str, NDArray[Any]]:
            with torch.no_grad(), precision.autocast(number_format, device):
                hidden = _of_targets(to_inputs(batch, device), self._teacher_hidden(to_inputs(batch, device), None))
                top = top_shares(hidden, self.teacher.lm_head.weight, k, s.temperature)
            return {"shares": top.shares.cpu().numpy(), "ids": top.ids.cpu().numpy(), "rest": top.rest.cpu().numpy()}

        files.fill(store, compute, lambda batch: rows(batch.targets), "teacher")
        self._top = files, rows

    def __call__(self, model: Any, batch: Batch, inputs: Inputs, *, recompute: bool, halves: Halves | None,
                 start: Start | None) -> tuple[Tensor, Tensor]:
        """Return the objective and the plain negative log likelihood, sums over the target tokens."""
        base = bare(model)
        if type(base.lm_head) is not nn.Linear:
            raise TrainError("the student's head is wrapped", where="model.lora.targets",
                             remedy="leave lm_head out of the adapters")
        mine: dict[int, Tensor] | None = {pair[0]: inputs.needed for pair in self._pairs} or None
        theirs: dict[int, Tensor] | None = {pair[1]: inputs.needed for pair in self._pairs} or None
        hidden = _of_targets(inputs, needed_hidden(base, inputs, halves or EAGER, recompute=recompute, start=start,
                                                   taps=mine))
        live = bool(self._pairs) or (self._settings.alpha > 0 and self._top is None)
        with torch.no_grad():
            seen = _of_targets(inputs, self._teacher_hidden(inputs, theirs)) if live else None
        teacher = self._distribution(batch, inputs, seen)
        s = self._settings
        objective, nll = distil_sums(hidden, base.lm_head.weight, inputs.labels, teacher, alpha=s.alpha,
                                     temperature=s.temperature, smoothing=self._smoothing, weights=inputs.weights)
        if mine is not None and theirs is not None:
            objective = objective + s.features * self._features(inputs, mine, theirs, start)
        return objective, nll

    def _distribution(self, batch: Batch, inputs: Inputs, hidden: Tensor | None) -> Whole | Top:
        if self._top is not None:
            (files, rows), to = self._top, inputs.labels.device
            where = rows(batch.targets)
            shares, ids, rest = (torch.from_numpy(files.read(name, where)).to(to)
                                 for name in ("shares", "ids", "rest"))
            return Top(shares, ids.long(), rest)
        if not self._settings.alpha:
            nothing = torch.zeros(len(inputs.labels), 1, device=inputs.labels.device)
            return Top(nothing + 1, inputs.labels[:, None], nothing)
        assert hidden is not None
        return Whole(hidden, self.teacher.lm_head.weight)

    def _teacher_hidden(self, inputs: Inputs, taps: dict[int, Tensor] | None) -> Tensor:
        return needed_hidden(self.teacher, inputs, EAGER, taps=taps)

    def _features(self, inputs: Inputs, mine: dict[int, Tensor], theirs: dict[int, Tensor],
                  start: Start | None) -> Tensor:
        """Sum over the targets of the mean squared error, the teacher's states scaled to a root mean square of one."""
        assert self.module is not None
        total = torch.zeros((), device=inputs.labels.device)
        for (student_layer, teacher_layer), projection in zip(self._pairs, self.module.children(), strict=True):
            if start is not None and student_layer < start.layer:
                raise TrainError(f"layer {student_layer + 1} of the student is frozen and cached, and cannot learn",
                                 where="distill.layers", remedy="leave it out, or switch train.freeze.cache off")
            goal = theirs[teacher_layer].float()
            goal = goal * torch.rsqrt(goal.square().mean(-1, keepdim=True) + 1e-6)
            errors = (projection(mine[student_layer]).float() - goal).square().mean(-1)
            errors = _of_targets(inputs, errors)
            total = total + (errors.sum() if inputs.weights is None else errors @ inputs.weights)
        return total / len(self._pairs)


def _of_targets(inputs: Inputs, rows: Tensor) -> Tensor:
    """From needed rows to target tokens."""
    return rows if inputs.which is None else rows.index_select(0, inputs.which)


def _pairs(settings: DistilLoss, student: Any, teacher: Any) -> list[tuple[int, int]]:
    """Layers to be compared, from 0."""
    own, theirs = len(student.model.layers), len(teacher.model.layers)
    if not (walkable(student) and walkable(teacher)):
        raise TrainError("hidden states can be compared in GLMs with silu only", where="distill.features",
                         remedy="set distill.features to 0")
    if settings.layers is None:
        return [(number, -(-(number + 1) * theirs // own) - 1) for number in range(own)]
    for one, other in settings.layers:
        if not (1 <= one <= own and 1 <= other <= theirs):
            raise TrainError(f"there is no pair of layers {one} and {other}: the student has {own}, the teacher "
                             f"{theirs}", where="distill.layers", remedy="count layers from 1")
    if len({one for one, _ in settings.layers}) < len(settings.layers):
        raise TrainError("a layer of the student stands in two pairs", where="distill.layers", remedy="keep one")
    return [(one - 1, other - 1) for one, other in settings.layers]


def _projections(pairs: list[tuple[int, int]], student: Any, teacher: Any, seed: int) -> nn.Module:
    """One matrix a pair, from the student's width to the teacher's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.ModuleList(nn.Linear(student.config.hidden_size, teacher.config.hidden_size, bias=False)
                             for _ in pairs)
