"""What goes in and out of a search: outcomes of the objective, records of trials, the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from openautoglm.search.space import Value

State = Literal["complete", "pruned", "refused", "failed", "interrupted"]
Stopped = Literal["trials", "minutes", "no feasible point left"]


class Pruned(Exception):  # noqa: N818 - the end of a trial, not a fault
    """Raised by ``report``: the trial ends here. The objective lets it pass, after closing what it opened."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an objective returns.

    Attributes:
        value: validation loss at the end; lower is better. Not finite means that training diverged.
        metrics: figures of the task, by name; one of them may choose among trials.
        constraints: measured excesses over limits (peak memory, say); above 0 the trial is infeasible.
    """

    value: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    constraints: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial as it ended.

    Attributes:
        number: number in the storage (0-based).
        state: ``complete``; ``pruned`` by Hyperband or diverged; ``refused`` by a constraint before training;
            ``failed`` with an error; ``interrupted`` and run again under another number.
        point: value of every dimension.
        value: validation loss, None if there is none.
        metrics, constraints: as in :class:`Outcome`.
        reports: (training tokens, validation loss) in order.
        seconds: wall time, 0 where a kill left none.
        error: what failed or why it ended early.
    """

    number: int
    state: State
    point: Mapping[str, Value]
    value: float | None
    metrics: Mapping[str, float]
    constraints: Mapping[str, float]
    reports: tuple[tuple[int, float], ...]
    seconds: float
    error: str | None

    @property
    def feasible(self) -> bool:
        """Whether no constraint is exceeded."""
        return all(excess <= 0 for excess in self.constraints.values())

    def figure(self, metric: str | None) -> float:
        """Return the metric, or the validation loss for None."""
        if metric is not None:
            return self.metrics[metric]
        return float("inf") if self.value is None else self.value


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A finished search.

    Attributes:
        best: the best completed, feasible trial by `metric` (validation loss for None).
        trials: all trials by number.
        importances: share of each dimension in reaching low validation loss (PED-ANOVA), empty below 5
            completed trials.
        metric, maximize: what chose the best.
        stopped: which limit ended the search.
        seconds: spent on trials, all resumes together.
    """

    best: TrialRecord
    trials: tuple[TrialRecord, ...]
    importances: Mapping[str, float]
    metric: str | None
    maximize: bool
    stopped: Stopped
    seconds: float

    @property
    def history(self) -> list[dict[str, float | int]]:
        """One entry a completed feasible trial: number, figure of the choosing metric, best until then."""
        entries: list[dict[str, float | int]] = []
        better = max if self.maximize else min
        for trial in self.trials:
            if trial.state == "complete" and trial.feasible:
                figure = trial.figure(self.metric)
                best = better(figure, float(entries[-1]["best"])) if entries else figure
                entries.append({"number": trial.number, "figure": figure, "best": best})
        return entries

    def table(self, most: int = 20) -> str:
        """Return the best `most` trials and a count of the others, for people."""
        done = [trial for trial in self.trials if trial.state == "complete" and trial.feasible]
        done.sort(key=lambda trial: trial.figure(self.metric), reverse=self.maximize)
        names = list(self.best.point)
        head = ["trial", "valid loss", *([self.metric] if self.metric else []), "seconds", *names]
        rows = [head]
        for trial in done[:most]:
            chosen_by = [f"{trial.figure(self.metric):.4g}"] if self.metric else []
            rows.append([str(trial.number), f"{trial.value:.4f}", *chosen_by, f"{trial.seconds:.0f}",
                         *(_show(trial.point[name]) for name in names)])
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
                 for row in rows]
        counts = {state: sum(trial.state == state for trial in self.trials)
                  for state in ("complete", "pruned", "refused", "failed", "interrupted")}
        told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        lines.append(f"{told}; {self.seconds / 60:.1f} minutes; ended by {self.stopped}")
        if self.importances:
            shares = ", ".join(f"{name} {share:.0%}" for name, share in self.importances.items())
            lines.append(f"importance for the validation loss (PED-ANOVA): {shares}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON; what is not finite becomes None."""
        return {"best": record_dict(self.best), "trials": [record_dict(trial) for trial in self.trials],
                "importances": dict(self.importances), "metric": self.metric, "maximize": self.maximize,
                "stopped": self.stopped, "seconds": self.seconds, "history": self.history}


def record_dict(trial: TrialRecord) -> dict[str, Any]:
    """Return a trial as plain containers for JSON."""
    return {"number": trial.number, "state": trial.state, "point": dict(trial.point),
            "value": _finite(trial.value),
            "metrics": {name: _finite(value) for name, value in trial.metrics.items()},
            "constraints": {name: _finite(value) for name, value in trial.constraints.items()},
            "reports": [[tokens, _finite(loss)] for tokens, loss in trial.reports],
            "seconds": trial.seconds, "error": trial.error}


def _finite(value: float | None) -> float | None:
    return value if value is not None and abs(value) < float("inf") else None


def _show(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
