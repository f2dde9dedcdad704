"""The one error tree. Every error says what was wrong, where, and what to do.

::

    AutoGLMError
    ├── TaskError          a task file or a setting (carries every fault at once)
    ├── DataError          an input file, a row, a column, a ratio of rejects
    ├── RuleError          a cleaning rule that cannot work as configured
    ├── TokenizerError     text that cannot become ids, a damaged tokenizer
    ├── SpecError          an architecture that cannot be built or is not supported
    ├── GraphError         a graph, an operator or a rule that does not fit
    ├── BundleError        a bundle that is damaged, too new, or not a bundle
    ├── TrainError         training cannot start or go on
    │   └── CheckpointError    a checkpoint that is damaged or of another run
    ├── CompressError      a model that cannot be compressed as asked
    ├── SearchError        a search that cannot start, resume or find a feasible trial
    ├── EvaluationError    predictions and references that do not fit together
    ├── GenerationError    a generation request that cannot be served
    ├── LoadError          a load that cannot be put on a server, measurements that do not fit together
    ├── PluginError        a plug-in that does not load or breaks its contract
    ├── ResourceError      memory, disk or a device that is not enough
    └── MissingExtraError  an optional dependency that is not installed

What clients of the service are told has a tree of its own, in `serve/faults.py`.
"""

from __future__ import annotations

from dataclasses import dataclass


class AutoGLMError(Exception):
    """Base of all our errors.

    Args:
        message: what was wrong, one sentence.
        where: file, line, key or row it concerns, e.g. ``"train.csv:17"``.
        remedy: what the user can do about it.
    """

    def __init__(self, message: str, *, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  remedy: {self.remedy}" if self.remedy else text


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a task file: key path, position (1-based, 0 when unknown), message, remedy."""

    key: str
    line: int
    column: int
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        place = f"line {self.line}, column {self.column}: " if self.line else ""
        return f"{place}{self.key}: {self.message}" + (f" ({self.remedy})" if self.remedy else "")


class TaskError(AutoGLMError):
    """A task file with faults; ``faults`` holds all of them."""

    def __init__(self, message: str, *, where: str | None = None, remedy: str | None = None,
                 faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(message, where=where, remedy=remedy)
        self.faults = faults

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  - {fault}" for fault in self.faults)])


class DataError(AutoGLMError):
    """An input file, a row, a column, or too many rejects."""


class RuleError(AutoGLMError):
    """A cleaning rule that cannot work as configured."""


class TokenizerError(AutoGLMError):
    """Text that cannot become ids, or a tokenizer that is damaged."""


class SpecError(AutoGLMError):
    """An architecture that cannot be built or is not supported."""


class GraphError(AutoGLMError):
    """A graph that is not whole, an operator whose inputs do not fit, a rule that breaks its contract."""


class BundleError(AutoGLMError):
    """A bundle that is damaged, of a newer format, or not a bundle."""


class TrainError(AutoGLMError):
    """Training cannot start or go on."""


class CheckpointError(TrainError):
    """A checkpoint that is damaged or belongs to another run."""


class CompressError(AutoGLMError):
    """A model that cannot be compressed as asked."""


class SearchError(AutoGLMError):
    """A search that cannot start, resume, or find a feasible trial."""


class EvaluationError(AutoGLMError):
    """Predictions and references that do not fit together."""


class GenerationError(AutoGLMError):
    """A generation request that cannot be served."""


class LoadError(AutoGLMError):
    """A load cannot be put on a server or an engine, or measurements do not fit together."""


class PluginError(AutoGLMError):
    """A plug-in that does not load or breaks its contract."""


class ResourceError(AutoGLMError):
    """Memory, disk or a device that is not enough."""


class MissingExtraError(AutoGLMError):
    """An optional dependency is not installed; the remedy names the extra, or is given where there is none for it."""

    def __init__(self, package: str, extra: str, remedy: str | None = None) -> None:
        super().__init__(f"{package} is not installed",
                         remedy=remedy or f"pip install 'openautoglm[{extra}]' -c constraints.txt")
