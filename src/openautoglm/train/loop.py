"""The training loop: a generator of optimiser steps that resumes bit for bit on CPU after a stop anywhere."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from openautoglm.core import log
from openautoglm.core.errors import TrainError
from openautoglm.core.files import fingerprint
from openautoglm.data.agreement import store_weights
from openautoglm.data.pack import Unit, collate, plan_pass
from openautoglm.data.tokens import TokenStore
from openautoglm.train import precision
from openautoglm.train.checkpoint import Checkpoints
from openautoglm.train.distil import LOGITS
from openautoglm.train.events import RunState, StepEvent
from openautoglm.train.forward import compiled, to_inputs
from openautoglm.train.freeze import Freezer
from openautoglm.train.goal import CrossEntropy, Goal
from openautoglm.train.interrupt import stop_request
from openautoglm.train.masked import Masked
from openautoglm.train.memory import keep_freed_memory
from openautoglm.train.optim import FlatAdamW
from openautoglm.train.record import Recorder
from openautoglm.train.schedule import ema_decay, learning_rate
from openautoglm.train.settings import TrainSettings
from openautoglm.train.states import NAME as FROZEN
from openautoglm.train.states import FrozenStates
from openautoglm.train.validate import valid_loss

Hook = Callable[[Any, int], Mapping[str, float]]


def train(model: Any, train_store: TokenStore, valid_store: TokenStore | None, settings: TrainSettings,
          folder: Path | None, *, on_validate: Hook | None = None, goal: Goal | None = None,
          masks: Mapping[str, torch.Tensor] | None = None) -> Iterator[StepEvent]:
    """Train `model` in place, yielding an event after every optimiser step.

    A run that finds a checkpoint of itself in `folder` goes on from it; a finished run yields nothing. At
    the end the model holds the best validated weights (the averaged ones with ``ema_decay``). A consumer
    may stop by closing the generator; the model is then left as it is. Each step reseeds torch's global
    random state.

    Args:
        model: a transformers causal language model (from `models.hf`), perhaps wrapped by peft, on its
        device.
        folder: for checkpoints, best weights and metrics; None keeps nothing on disk.
        on_validate: called at each validation with the model (in evaluation mode, averaged if so set) and
        step.
        goal: what a step minimises; None: the cross entropy of the targets.
        masks: which weights of a parameter stay, bool in its shape, by name; the others are zero after every step.

    Raises:
        CheckpointError: the folder's checkpoint is damaged or of another run.
        TrainError: a loss or gradient that is not finite, an unknown `best_by`.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the checkpoint is written; it says how to resume.
    """
    run = Run(model, train_store, valid_store, settings, folder, on_validate, goal, masks)
    run.resume()
    if not run.state.finished:
        recorder = Recorder(folder, after_step=run.state.step, tensorboard=settings.tensorboard)
        with recorder, stop_request() as request, closing(run):
            for event in run.steps():
                recorder.add(event)
                yield event
                if request.asked and not run.state.finished:
                    run.interrupted()
    run.restore_best()


class Run:
    """One run: the state, and the verbs that move it on."""

    def __init__(self, model: Any, train_store: TokenStore, valid_store: TokenStore | None,
                 settings: TrainSettings, folder: Path | None, on_validate: Hook | None,
                 goal: Goal | None = None, masks: Mapping[str, torch.Tensor] | None = None) -> None:
        self.model, self.store, self.valid_store = model, train_store, valid_store
        self.settings, self.hook = settings, on_validate
        self.device = next(model.parameters()).device
        self.precision = precision.choose(settings.precision, self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.weights = store_weights(train_store, settings.agreement) if settings.agreement else None
        self.masked = Masked(model, masks or {})  # first: averages begin with its zeros
        self.goal = goal or CrossEntropy(settings.label_smoothing)
        self.freezer, self.folder = Freezer(model, settings.freeze), folder
        self.frozen: FrozenStates | None = None
        self.optim = FlatAdamW(model, settings, more=self.goal.module,
                               scratch=folder / "moments" if folder is not None else None)
        self.state = RunState()
        self.best_weights: dict[str, torch.Tensor] | None = None
        identity = settings.numeric() | dict(self.goal.identity) | {
            "train data": train_store.fingerprint, "validation data": valid_store and valid_store.fingerprint,
            "model": fingerprint([[key, places] for key, places in self.optim.layout.items()]),
        } | self.masked.identity
        self.checkpoints = Checkpoints(folder, identity, settings.keep) if folder is not None else None
        self._rates: deque[tuple[int, float]] = deque(maxlen=32)
        self._written_at = time.monotonic()
        self._how: dict[str, Any] = {"recompute": settings.gradient_checkpointing,
                                     "halves": compiled() if settings.compile == "on" else None}

    def steps(self) -> Iterator[StepEvent]:
        """Run to the end of the nearest limit, or until patience ends."""
        plan = self._plan()
        freeze = self.settings.freeze
        if freeze is not None and freeze.cache and not self.freezer.stage:
            self.frozen = FrozenStates(self.model, self.store, freeze, self.folder, self.precision)
        self.goal.prepare(self.store, self.folder, self.precision)
        self._written_at = time.monotonic()
        while not self.state.finished:
            if self.state.step_in_pass >= len(plan):
                self.state.pass_number += 1
                self.state.step_in_pass = 0
                plan = self._plan()
            started = time.monotonic()
            event = self._step(plan[self.state.step_in_pass], len(plan))
            took = time.monotonic() - started
            ended = event.progress >= 1
            if ended or self._validation_due(event.passes):
                event = self._validate(event, ended)
            self.state.finished = ended or self._out_of_patience()
            self.state.elapsed_s += time.monotonic() - started
            yield self._timed(event, took)
            self._maybe_checkpoint()

    def _plan(self) -> list[list[Unit]]:
        s = self.settings
        return plan_pass(self.store, s.layout, seed=s.seed, number=self.state.pass_number, batch=s.batch,
                         batch_unit=s.batch_unit, references_per_source=s.references_per_source)

    def _step(self, units: list[Unit], steps_in_pass: int) -> StepEvent:
        """One optimiser step: gradients of all parts, normalised by the target tokens of the whole step."""
        s, state = self.settings, self.state
        batches = collate(self.store, units, s.layout, row_tokens=s.row_tokens, parts=s.accumulation,
                          weights=self.weights)
        targets = sum(len(batch.labels) for batch in batches)
        mass = sum(float(len(batch.labels) if batch.weights is None else batch.weights.sum()) for batch in batches)
        torch.manual_seed((s.seed * 1_000_003 + state.step) % 2**63)
        self._thaw(self.freezer.due(self._progress(state.pass_number + state.step_in_pass / steps_in_pass)))
        self.model.train()
        self.optim.zero()
        objective = nll = 0.0
        for batch in batches:
            start = self.frozen.start(self.model, batch) if self.frozen is not None else None
            with precision.autocast(self.precision, self.device):
                part, part_nll = self.goal(self.model, batch, to_inputs(batch, self.device), start=start, **self._how)
            (part / mass).backward()  # type: ignore[no-untyped-call]
            objective, nll = objective + float(part.detach()), nll + float(part_nll)
        state.step += 1
        state.step_in_pass += 1
        state.tokens += sum(batch.real_tokens for batch in batches)
        state.target_tokens += targets
        passes = state.pass_number + state.step_in_pass / steps_in_pass
        progress = self._progress(passes)
        lr = learning_rate(s, progress)
        self.masked.before_update()
        norm = self.optim.step(lr, ema_decay(s, state.step) if s.ema_decay is not None else None)
        self.masked.after_update()
        real = sum(batch.real_tokens for batch in batches)
        return StepEvent(state.step, passes, progress, state.tokens, state.target_tokens, objective / mass,
                         nll / targets, lr, norm, float(real), 0.0, 0.0)

    def _thaw(self, stage: int) -> None:
        """Let the parts up to `stage` learn from now on."""
        for number in range(self.freezer.stage + 1, stage + 1):
            self.freezer.thaw(number)
            self.optim.thaw(number)
        self.state.thawed = self.freezer.stage

    def _progress(self, passes: float) -> float:
        s = self.settings
        shares = [passes / s.passes if s.passes else 0.0, self.state.tokens / s.tokens if s.tokens else 0.0,
                  self.state.elapsed_s / (60 * s.minutes) if s.minutes else 0.0]
        return min(1.0, max(shares))

    def _timed(self, event: StepEvent, took: float) -> StepEvent:
        """Fill in the rates; `tokens_per_s` arrives holding the step's real tokens."""
        self._rates.append((int(event.tokens_per_s), took))
        tokens, seconds = (sum(column) for column in zip(*self._rates, strict=True))
        left = self.state.elapsed_s * (1 - event.progress) / max(event.progress, 1e-9)
        return replace(event, tokens_per_s=tokens / max(seconds, 1e-9), left_s=left,
                       elapsed_s=self.state.elapsed_s)

    def _validation_due(self, passes: float) -> bool:
        return int(passes / self.settings.validate_every_passes + 1e-9) > self.state.validations

    def _validate(self, event: StepEvent, ended: bool) -> StepEvent:
        s, state = self.settings, self.state
        if not ended:
            state.validations += 1
        if self.valid_store is None and self.hook is None:
            return event
        self.model.eval()
        with self.optim.averaged():
            loss = None
            if self.valid_store is not None:
                loss = valid_loss(self.model, self.valid_store, rows=s.valid_rows,
                                  number_format=self.precision)
            metrics = dict(self.hook(self.model, state.step)) if self.hook is not None else {}
        return replace(event, valid_loss=loss, metrics=metrics, best=self._judge(loss, metrics))

    def _judge(self, loss: float | None, metrics: Mapping[str, float]) -> bool:
        """Compare with the best so far, and keep the weights of a new best."""
        s, state = self.settings, self.state
        value = loss if s.best_by == "valid_loss" else metrics.get(s.best_by)
        if value is None:
            if s.best_by == "valid_loss":
                return False
            raise TrainError(f"the validation hook returned no {s.best_by!r}, but {sorted(metrics)}",
                             where="best_by", remedy="name one of these, or valid_loss")
        sign = 1 if s.smaller_is_better else -1
        if state.best_value is not None and not sign * value < sign * state.best_value:
            state.worse_in_a_row += 1
            return False
        state.best_value, state.best_step, state.worse_in_a_row = value, state.step, 0
        if self.checkpoints is None:
            self.best_weights = self.optim.weights()
        else:
            self.checkpoints.write_best(state.step, self.optim.weights(copy=False))
        return True

    def _out_of_patience(self) -> bool:
        return self.settings.patience is not None and self.state.worse_in_a_row >= self.settings.patience

    def _maybe_checkpoint(self) -> None:
        s, state = self.settings, self.state
        if self.checkpoints is None:
            return
        minutes = (time.monotonic() - self._written_at) / 60
        due = (s.checkpoint_every_minutes is not None and minutes >= s.checkpoint_every_minutes) or (
            s.checkpoint_every_steps is not None and state.step % s.checkpoint_every_steps == 0)
        if due or state.finished:
            self.checkpoint(wait=state.finished)

    def checkpoint(self, *, wait: bool) -> None:
        """Write a checkpoint of this moment."""
        assert self.checkpoints is not None
        self.checkpoints.write(replace(self.state), self.optim.tensors(copy=not wait), wait=wait)
        self._written_at = time.monotonic()

    def interrupted(self) -> None:
        """Checkpoint and raise KeyboardInterrupt with a message that says how to go on."""
        message = f"training stopped after step {self.state.step}"
        if self.checkpoints is not None:
            self.checkpoint(wait=True)
            message += "; run the same command again to resume from its checkpoint"
        log.get(__name__).warning(message)
        raise KeyboardInterrupt(message)

    def resume(self) -> None:
        """Go on from the newest checkpoint of this run, if there is one."""
        found = self.checkpoints.latest() if self.checkpoints is not None else None
        if found is None:
            return
        self.state, tensors = found
        self._thaw(self.state.thawed)
        self.optim.load(tensors)
        log.get(__name__).info("resumed", extra={"step": self.state.step, "passes": self.state.pass_number})

    def restore_best(self) -> None:
        """Put the best weights into the model; without a validation the averaged or last ones."""
        weights = self.best_weights
        if self.checkpoints is not None and self.state.best_step is not None:
            weights = self.checkpoints.read_best(self.state.best_step)
        self.optim.set_weights(weights if weights is not None else self.optim.weights(copy=False))
        self.model.eval()

    def close(self) -> None:
        """Wait for a checkpoint under way."""
        if self.checkpoints is not None:
            self.checkpoints.join()
        if self.folder is not None and self.state.finished:
            self.frozen = None
            for name in (FROZEN, LOGITS, "moments"):
                shutil.rmtree(self.folder / name, ignore_errors=True)
