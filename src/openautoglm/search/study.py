"""The face of search: draws points, runs the objective under Hyperband and the budget, keeps the records."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from openautoglm.core.errors import SearchError
from openautoglm.core.extras import require
from openautoglm.core.files import write_json
from openautoglm.search.records import Outcome, Pruned, SearchResult, Stopped, TrialRecord, record_dict
from openautoglm.search.settings import SearchSettings
from openautoglm.search.space import Point, Space
from openautoglm.search.storage import alone, open_storage

if TYPE_CHECKING:
    from optuna.trial import Trial

    from openautoglm.search.session import Session

Report = Callable[[int, float], None]
Objective = Callable[[Point, Report], Outcome]
Constraints = Mapping[str, Callable[[Point], float]]

MOST_REFUSED = 200
MOST_FAILED = 10
_MOST_TEXT = 1500


class _OutOfTime(Pruned):
    """The minutes are spent and a completed trial is there."""


def search(space: Space, objective: Objective, settings: SearchSettings, folder: Path, *, max_tokens: int,
           min_tokens: int | None = None, constraints: Constraints | None = None,
           maximize: bool = False) -> SearchResult:
    """Search for the best point; a search which is stored in `folder` goes on where it ended.

    Args:
        space: dimensions; ``settings.space`` overrides them.
        objective: ``objective(point, report) -> Outcome``. It calls
            ``report(training_tokens, validation_loss)`` with growing tokens and lets the ``Pruned`` pass
            which that may raise.
        settings: budget, metric to choose by, seed, storage.
        folder: gets the journal, the random state and ``trials.json``.
        max_tokens: training tokens of a whole trial.
        min_tokens: first rung of Hyperband; by default `max_tokens` / 27.
        constraints: by name, the excess of a point over a limit, known before training; a point with any
            above 0 is refused.
        maximize: whether a higher ``settings.metric`` is better.

    Raises:
        SearchError: no limit is set, the stored search does not fit, another process searches here, or no
            feasible trial completed.
        KeyboardInterrupt: passed on, after the running trial was marked; the next call resumes.
    """
    if settings.trials is None and settings.minutes is None:
        raise SearchError("a search needs a limit", where="search",
                          remedy="set search.trials or search.minutes")
    space = space.override(settings.space)
    least = max(1, max_tokens // settings.reduction_factor**3) if min_tokens is None else min_tokens
    if not 1 <= least <= max_tokens:
        raise SearchError(f"the tokens of a trial cannot go from {least} to {max_tokens}")
    with alone(folder), _quiet():
        from openautoglm.search.session import open_session

        session = open_session(space, settings, open_storage(settings.storage, folder), folder,
                               min_tokens=least, max_tokens=max_tokens)
        run = _Run(session, objective, settings, constraints or {})
        try:
            stopped = run.until_a_limit()
        finally:
            told = [record_dict(trial) for trial in session.records()]
            write_json(folder / "trials.json", {"trials": told})
        result = _result(session, settings, maximize, stopped)
        write_json(folder / "trials.json", result.to_dict())
        return result


@dataclass
class _Run:
    """The loop over trials of one process."""

    session: Session
    objective: Objective
    settings: SearchSettings
    constraints: Constraints

    def until_a_limit(self) -> Stopped:
        while True:
            records = [record for record in self.session.records() if record.state != "interrupted"]
            trained = [record for record in records if record.state != "refused"]
            if self.settings.trials is not None and len(trained) >= self.settings.trials:
                return "trials"
            if self.settings.minutes is not None and self.spent() >= self.settings.minutes * 60 and trained:
                return "minutes"
            latest = records[-MOST_REFUSED:]
            if len(latest) == MOST_REFUSED and all(record.state == "refused" for record in latest):
                return "no feasible point left"
            if len(trained) >= MOST_FAILED and all(record.state == "failed" for record in trained):
                raise SearchError(f"the first {len(trained)} trials all failed; the first one with: "
                                  f"{trained[0].error}",
                                  remedy="repair the cause and search in another folder")
            try:
                self.one(self.session.ask())
            except _OutOfTime:
                return "minutes"

    def spent(self) -> float:
        """Seconds on trials, all resumes together."""
        return sum(record.seconds for record in self.session.records())

    def one(self, trial: Trial) -> None:
        """Run one trial to its end, whatever that is."""
        from optuna.trial import TrialState

        study, started = self.session.study, time.monotonic()
        state, value = TrialState.FAIL, None
        try:
            outcome = self.outcome(trial, started)
            if outcome is None:
                state = TrialState.PRUNED
            else:
                value = _told(trial, outcome, self.settings.metric)
                state = TrialState.COMPLETE if value is not None else TrialState.PRUNED
        except _OutOfTime:
            self.interrupted(trial, started)
            raise
        except Pruned:
            state = TrialState.PRUNED
        except Exception as error:  # any fault of one point is recorded; the search goes on
            trial.set_user_attr("error", f"{type(error).__name__}: {error}"[:_MOST_TEXT])
        except BaseException:
            self.interrupted(trial, started)
            raise
        trial.set_user_attr("seconds", time.monotonic() - started)
        study.tell(trial, value, state)

    def interrupted(self, trial: Trial, started: float) -> None:
        trial.set_user_attr("seconds", time.monotonic() - started)
        self.session.interrupt(trial.number)

    def outcome(self, trial: Trial, started: float) -> Outcome | None:
        """Return the objective's outcome, None where a constraint refuses the point."""
        point = self.session.space.point(trial.params)
        excesses = {name: float(excess(point)) for name, excess in self.constraints.items()}
        for name, excess in excesses.items():
            trial.set_constraint(name, excess)
        over = [f"{name} by {excess:.4g}" for name, excess in excesses.items() if excess > 0]
        if over:
            trial.set_user_attr("refused", True)
            trial.set_user_attr("error", f"over the limit: {', '.join(over)}"[:_MOST_TEXT])
            return None
        return self.objective(point, self.reporter(trial, started))

    def reporter(self, trial: Trial, started: float) -> Report:
        before, limit = self.spent(), self.settings.minutes
        completed = any(record.state == "complete" and record.feasible for record in self.session.records())
        latest = -1

        def report(tokens: int, loss: float) -> None:
            nonlocal latest
            if tokens <= latest:
                raise SearchError(f"reported tokens must grow, but {tokens} came after {latest}")
            latest = tokens
            trial.report(loss if math.isfinite(loss) else math.nan, tokens)
            if not math.isfinite(loss):
                trial.set_user_attr("error", f"diverged: validation loss {loss} after {tokens} tokens")
                raise Pruned
            if trial.should_prune():
                raise Pruned
            if completed and limit is not None and before + time.monotonic() - started > limit * 60:
                raise _OutOfTime

        return report


def _told(trial: Trial, outcome: Outcome, metric: str | None) -> float | None:
    """Record an outcome on its trial; return the value to tell, None if training diverged."""
    if metric is not None and metric not in outcome.metrics:
        given = ", ".join(outcome.metrics) or "no metrics"
        raise SearchError(f"the objective gave no {metric!r}, only {given}", where="search.metric")
    trial.set_user_attr("metrics", {name: float(value) for name, value in outcome.metrics.items()})
    for name, excess in outcome.constraints.items():
        trial.set_constraint(f"{name} (measured)", float(excess))
    if not math.isfinite(outcome.value):
        trial.set_user_attr("error", f"diverged: validation loss {outcome.value}")
        return None
    return float(outcome.value)


def _result(session: Session, settings: SearchSettings, maximize: bool, stopped: Stopped) -> SearchResult:
    from openautoglm.search.importance import importances

    records = session.records()
    done = [trial for trial in records if trial.state == "complete" and trial.feasible]
    if not done:
        raise SearchError(f"no feasible trial completed ({_why(records)})",
                          remedy="raise the limits, widen search.space, or repair what failed")
    chooses = maximize and settings.metric is not None
    sign = -1.0 if chooses else 1.0
    best = min(done, key=lambda trial: (sign * trial.figure(settings.metric), trial.figure(None)))
    return SearchResult(best, records, importances(session.study), settings.metric, chooses, stopped,
                        sum(trial.seconds for trial in records))


def _why(records: tuple[TrialRecord, ...]) -> str:
    counts = {state: sum(trial.state == state for trial in records)
              for state in ("complete", "pruned", "refused", "failed")}
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none ran"
    errors = [trial.error for trial in records if trial.error and trial.state != "interrupted"]
    return f"{told}; {errors[0]}" if errors else told


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna's own lines about each trial off the terminal; its warnings stay."""
    optuna = require("optuna", "train")
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
