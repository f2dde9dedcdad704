"""One search on its storage: asks for trials in a reproducible sequence and records what became of them.

After each draw ``state.json`` holds the trial's position, its parameters and the sampler's random state. A
process that finds unfinished trials marks them failed and interrupted. If the state knows the next position,
that trial had been drawn: it is enqueued with the same parameters, and the random state after its first draw
is restored. Otherwise it had not: the random state before it is restored, and the sampler draws it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from openautoglm.core.errors import SearchError
from openautoglm.core.files import fingerprint, read_json, write_json
from openautoglm.search import randomness
from openautoglm.search.fidelity import TokenHyperband, affordable_brackets, bracket_count
from openautoglm.search.records import State, TrialRecord
from openautoglm.search.settings import SearchSettings
from openautoglm.search.space import Space

INTERRUPTED = "interrupted"


@dataclass
class Session:
    """A study that is open for this process; made by :func:`open_session`."""

    study: optuna.study.Study
    storage: BaseStorage
    pruner: TokenHyperband
    space: Space
    state_path: Path

    def trials(self) -> list[FrozenTrial]:
        """Return all trials that were begun, by number."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]

    def position(self) -> int:
        """Return the position of the next trial: how many were begun and not interrupted."""
        return sum(INTERRUPTED not in trial.user_attrs for trial in self.trials())

    def ask(self) -> Trial:
        """Begin the next trial, all parameters drawn and the random state stored."""
        position = self.position()
        state = self.state()
        if state is not None and state["position"] == position:
            if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                self.study.enqueue_trial(state["params"])
            trial = self.study.ask(self.space.distributions())
            randomness.restore(self.study.sampler, state["random"])  # a sampler may draw before any trial
            return trial
        trial = self.study.ask(self.space.distributions())
        write_json(self.state_path, {"position": position, "params": trial.params,
                                     "random": randomness.dump(self.study.sampler)})
        return trial

    def interrupt(self, number: int) -> None:
        """Mark a running trial as interrupted; it will be run again."""
        study_id = self.storage.get_study_id_from_name(self.study.study_name)
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(study_id, number)
        self.storage.set_trial_user_attr(trial_id, INTERRUPTED, True)
        self.study.tell(number, state=TrialState.FAIL)
        self.pruner.interrupt(number)

    def state(self) -> Any:
        """Return what was stored after the latest draw, None before the first."""
        return read_json(self.state_path) if self.state_path.exists() else None

    def records(self) -> tuple[TrialRecord, ...]:
        """Return all trials begun, as plain records."""
        return tuple(record(trial, self.space) for trial in self.trials())


def open_session(space: Space, settings: SearchSettings, storage: BaseStorage, folder: Path, *,
                 min_tokens: int, max_tokens: int) -> Session:
    """Create the study, or resume it: unfinished trials are marked, random state and brackets restored.

    Raises:
        SearchError: the study is of another space or other settings, or its random state is missing.
    """
    sampler = TPESampler(n_startup_trials=settings.startup_trials, multivariate=True, seed=settings.seed)
    study = optuna.create_study(study_name=settings.name, storage=storage, sampler=sampler,
                                direction="minimize", load_if_exists=True)
    most = bracket_count(min_tokens, max_tokens, settings.reduction_factor)
    brackets = settings.brackets or affordable_brackets(settings.trials, settings.startup_trials, most)
    facts = {"space": space.describe(), "seed": settings.seed, "min_tokens": min_tokens,
             "max_tokens": max_tokens, "startup_trials": settings.startup_trials,
             "reduction_factor": settings.reduction_factor}
    brackets = _agree(study, facts, brackets, str(folder))
    interrupted = [trial.number for trial in study.get_trials(deepcopy=False)
                   if INTERRUPTED in trial.user_attrs]
    pruner = TokenHyperband(min_tokens=min_tokens, max_tokens=max_tokens, brackets=brackets,
                            reduction_factor=settings.reduction_factor, interrupted=interrupted)
    study.pruner = pruner
    session = Session(study, storage, pruner, space, folder / "state.json")
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        session.interrupt(trial.number)
    _restore(session)
    return session


def _agree(study: optuna.study.Study, facts: Mapping[str, Any], brackets: int, where: str) -> int:
    """Store what the sequence of trials depends on, or compare it with what is stored; give the brackets."""
    mine = fingerprint(facts)
    stored = study.user_attrs.get("fingerprint")
    if stored is None:
        study.set_user_attr("brackets", brackets)
        study.set_user_attr("fingerprint", mine)
        return brackets
    if stored != mine:
        raise SearchError("a search with another space, seed or token range is stored here", where=where,
                          remedy="restore the settings to resume it, or search in another folder")
    return int(study.user_attrs["brackets"])


def _restore(session: Session) -> None:
    state, position = session.state(), session.position()
    if state is None and position == 0:
        return
    if state is None or state["position"] not in (position - 1, position):
        raise SearchError("the random state is missing or of another search: the sequence cannot go on",
                          where=str(session.state_path),
                          remedy="put state.json back, or search in another folder")
    randomness.restore(session.study.sampler, state["random"])


def record(trial: FrozenTrial, space: Space) -> TrialRecord:
    """Return Optuna's trial as our record."""
    attrs = trial.user_attrs
    state: State = "pruned"
    if INTERRUPTED in attrs:
        state = "interrupted"
    elif "refused" in attrs:
        state = "refused"
    elif trial.state == TrialState.COMPLETE:
        state = "complete"
    elif trial.state == TrialState.FAIL:
        state = "failed"
    drawn = trial.params.keys() >= space.distributions().keys()
    return TrialRecord(
        number=trial.number, state=state, point=space.point(trial.params) if drawn else dict(trial.params),
        value=trial.value if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        metrics=attrs.get("metrics", {}), seconds=float(attrs.get("seconds", 0.0)), error=attrs.get("error"),
        constraints=trial.constraints,
        reports=tuple(sorted(trial.intermediate_values.items())))
