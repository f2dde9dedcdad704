"""The contract of a cleaning rule, as a check which authors of plug-ins run in their own tests."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from openautoglm.core.errors import PluginError
from openautoglm.core.values import Example, Origin, Turn
from openautoglm.data.rules.base import Drop, Rule

_TEXTS = ("", " ", "plain text", " doubled  spaces \t and\r\nlines\n\n\n\nend ", "CafÃ© and Café for £20",
          "e\u0301", "null", "NaN", "一壶酒，独酌无相亲。", "mail jo@example.org or +44 20 7946 0958",
          "no no no no " * 10, "\x00\x07bell\ufeff", "👩‍👩‍👧 emoji", "a" * 500, "İstanbul ß ﬁ ½")

EXAMPLES: tuple[Example, ...] = tuple(
    Example(text, _TEXTS[-place - 1], Origin("contract.csv", place + 1), fields, turns)
    for place, text in enumerate(_TEXTS)
    for fields in ((), (("name", text), ("amount", str(place)), ("mail", "jo@example.org")))
    for turns in ((), (Turn("user", text), Turn("assistant", "yes")))
)
"""Examples with something for every kind of rule: empty, dirty, clean, with and without fields and turns."""


def check_rule(rule_class: type[Rule], settings: Mapping[str, Any] | None = None,
               examples: Iterable[Example] = ()) -> Rule:
    """Check that a rule keeps the contract with `settings` on our examples and `examples`; return the rule.

    The contract: every setting is described; the rule rebuilds itself from its settings and from a pickle; it
    answers alike every time, changes no example in place, returns the same object where it changed nothing,
    keeps the origin, and, where it says so, finds nothing left to do in its own result.

    Raises:
        PluginError: the first breach, with the example's place.
    """
    _check_face(rule_class)
    rule = rule_class.model_validate(dict(settings or {}))
    everything = (*EXAMPLES, *examples)
    if rule.needs_fit:
        rule = _check_fit(rule, everything)
    _check_round_trip(rule)
    for example in everything:
        check_apply(rule, example)
    return rule


def _check_face(rule_class: type[Rule]) -> None:
    name = getattr(rule_class, "name", "")
    if not (isinstance(name, str) and name.isidentifier() and name == name.lower()):
        raise _breach(rule_class, f"its name must be a lower-case word, not {name!r}")
    if not (rule_class.__doc__ or "").strip() or rule_class.__doc__ == Rule.__doc__:
        raise _breach(rule_class, "it has no docstring")
    for key, field in rule_class.model_fields.items():
        if not field.description:
            raise _breach(rule_class, f"its setting {key!r} has no description")


def _check_fit(rule: Rule, examples: Sequence[Example]) -> Rule:
    before = rule.model_copy(deep=True)
    fitted, again = rule.fit(iter(examples)), rule.fit(iter(examples))
    if rule != before:
        raise _breach(type(rule), "fit changes the rule in place")
    if fitted != again:
        raise _breach(type(rule), "fit learns something else from the same examples")
    return fitted


def _check_round_trip(rule: Rule) -> None:
    item = rule.item()
    options = {} if isinstance(item, str) else item[rule.name]
    if type(rule).model_validate(options) != rule:
        raise _breach(type(rule), "it is another rule when built again from its own settings")
    try:
        again = pickle.loads(pickle.dumps(rule))  # noqa: S301  # nosec B301  # our own object, just pickled
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise _breach(type(rule), f"it cannot be pickled: {error}") from error
    if again != rule:
        raise _breach(type(rule), "it is another rule after pickling")


def check_apply(rule: Rule, example: Example) -> None:
    """Check the contract of `apply` on one example; property tests call it with examples of their own making.

    Raises:
        PluginError: the rule breaks it.
    """
    kind, where = type(rule), str(example.origin)
    kept = (example.source, example.target, example.origin, example.fields, example.turns)
    result, again = rule.apply(example), rule.apply(example)
    if (example.source, example.target, example.origin, example.fields, example.turns) != kept:
        raise _breach(kind, "it changes the example in place", where)
    if result != again:
        raise _breach(kind, "it answers differently to the same example", where)
    if isinstance(result, Drop):
        if not result.reason.strip() or "\n" in result.reason:
            raise _breach(kind, f"a drop needs a reason of one line, not {result.reason!r}", where)
        return
    if not isinstance(result, Example):
        raise _breach(kind, f"it returns {type(result).__name__}, neither an Example nor a Drop", where)
    if result == example and result is not example:
        raise _breach(kind, "it returns a copy where it changed nothing", where)
    if result.origin != example.origin:
        raise _breach(kind, "it changes the origin", where)
    if rule.idempotent and result is not example and rule.apply(result) != result:
        raise _breach(kind, "it changes its own result, but says that it is idempotent", where)


def _breach(rule_class: type[Rule], message: str, where: str | None = None) -> PluginError:
    return PluginError(f"rule {getattr(rule_class, 'name', rule_class.__name__)!r}: {message}", where=where,
                       remedy="see openautoglm.data.rules.base for what a rule promises")
