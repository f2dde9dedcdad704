"""What a cleaning rule is: an example goes in, and the same example, a changed one, or a drop comes out."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal, NamedTuple, Self

from openautoglm.core.settings import Settings
from openautoglm.core.values import Example, Turn

Side = Literal["source", "target"]
"""What a rule works on. ``source`` is the whole input side: text, values of fields, earlier turns."""


class Drop(NamedTuple):
    """The example leaves the data; `reason` is one line for people, in the words of the rule."""

    reason: str


class Rule(Settings, abc.ABC):
    """One cleaning rule: its options are its fields, its verb is `apply`.

    A rule is frozen, has no state beyond its options, can be pickled, and gives the same answer to the
    same example. What it must learn from the data first (``needs_fit``) becomes options of the rule that
    `fit` returns.

    Attributes:
        name: the word that stands for the rule in a task file.
        needs_fit: whether `fit` must see the examples before `apply` is called.
        idempotent: whether a second `apply` to its own result changes nothing.
    """

    name: ClassVar[str]
    needs_fit: ClassVar[bool] = False
    idempotent: ClassVar[bool] = True

    def fit(self, examples: Iterable[Example]) -> Self:
        """Return the rule with what it learnt in one pass over `examples`; memory must stay bounded.

        Raises:
            RuleError: the examples do not hold what the rule needs.
        """
        return self

    @abc.abstractmethod
    def apply(self, example: Example) -> Example | Drop:
        """Return `example` itself when nothing is to do, a changed copy, or a `Drop`.

        Raises:
            RuleError: the rule cannot be carried out on this example as it is configured.
        """

    def item(self) -> str | dict[str, Any]:
        """Return the entry of a task file that builds this rule again (what `fit` learnt included)."""
        options = self.model_dump(mode="json", exclude_defaults=True)
        return {self.name: options} if options else self.name


_SEPARATOR = "|"


def rewritten(example: Example, on: tuple[Side, ...], rewrite: Callable[[str], str],
              may_change: Callable[[str], bool] | None = None) -> Example:
    """Return `example` with `rewrite` applied to the texts of the sides in `on`; itself when none changed.

    `may_change`, where given, looks at all texts joined by ``|`` and may answer no only when none of them
    needs work: one look at a clean example is several times cheaper than one at each of its texts.

    On the source side the values of fields and the earlier turns get the same treatment as the source, so
    that they stay consistent with it. Names of fields and roles are left alone.
    """
    source, target, fields, turns = example.source, example.target, example.fields, example.turns
    if may_change is not None:
        texts = [value for _, value in fields]
        texts += (source, target)
        if turns:
            texts += [text for _, text in turns]
        if not may_change(_SEPARATOR.join(texts)):
            return example
    if "target" in on:
        target = rewrite(target)
    if "source" in on:
        source = rewrite(source)
        if fields:
            fields = tuple([(name, rewrite(value)) for name, value in fields])
        if turns:
            turns = tuple([Turn(role, rewrite(text)) for role, text in turns])
    if (target == example.target and source == example.source
            and fields == example.fields and turns == example.turns):
        return example
    return Example(source, target, example.origin, fields, turns)
