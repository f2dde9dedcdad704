"""From the list in a task file to rules: names, plug-ins, faults with their place."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from openautoglm.core.errors import Fault, PluginError, RuleError
from openautoglm.core.plugins import distribution_of, load_plugins, plugin_entries
from openautoglm.data.rules.base import Rule
from openautoglm.data.rules.case import Case
from openautoglm.data.rules.containment import Containment
from openautoglm.data.rules.drop_matching import DropMatching
from openautoglm.data.rules.email import Email
from openautoglm.data.rules.length import Length
from openautoglm.data.rules.mask import Mask
from openautoglm.data.rules.mojibake import Mojibake
from openautoglm.data.rules.nulls import Nulls
from openautoglm.data.rules.outliers import Outliers
from openautoglm.data.rules.rare import Rare
from openautoglm.data.rules.ratio import Ratio
from openautoglm.data.rules.repetition import Repetition
from openautoglm.data.rules.replace import Replace
from openautoglm.data.rules.script import Script
from openautoglm.data.rules.unicode import Unicode
from openautoglm.data.rules.values import Values
from openautoglm.data.rules.whitespace import Whitespace

GROUP = "openautoglm.rules"
"""The entry point group in which other distributions offer rules."""

DEFAULT_RULES: tuple[str, ...] = ("mojibake", "unicode", "whitespace", "nulls", "length")
"""What cleaning does when a task file says nothing."""

_BUILT_IN: dict[str, type[Rule]] = {rule.name: rule for rule in (
    Case, Containment, DropMatching, Email, Length, Mask, Mojibake, Nulls, Outliers,
    Rare, Ratio, Repetition, Replace, Script, Unicode, Values, Whitespace)}


def rule_names() -> tuple[str, ...]:
    """Return the names of all rules, built in and plugged in, in alphabetical order.

    Raises:
        PluginError: a plug-in takes the name of a built-in rule or of another plug-in.
    """
    return tuple(sorted({*_BUILT_IN, *_plugged()}))


def rule_class(name: str) -> type[Rule]:
    """Return the class of the rule called `name`.

    Raises:
        RuleError: no rule has this name; the nearest one is named.
        PluginError: a plug-in does not load, is not a rule, or takes a name that is not free.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    if name not in _plugged():
        raise RuleError(f"no rule is called {name!r}", remedy=_nearest(name, rule_names(), "rules"))
    rule: Any = load_plugins(GROUP)[name]
    entry = _plugged()[name]
    if not (isinstance(rule, type) and issubclass(rule, Rule)):
        raise PluginError(f"{entry.value} of {distribution_of(entry)} is not a cleaning rule", where=GROUP,
                          remedy="an entry point of this group must name a subclass of Rule")
    if getattr(rule, "name", None) != name:
        raise PluginError(f"the rule of {distribution_of(entry)} is called {getattr(rule, 'name', None)!r}, "
                          f"its entry point {name!r}", where=GROUP, remedy="give both the same name")
    return rule


def build_rules(items: Iterable[str | Mapping[str, Any]]) -> tuple[Rule, ...]:
    """Build the rules of a task file's list: ``whitespace`` or ``{length: {target: [1, 200]}}``, in order.

    Raises:
        RuleError: an item is not a rule, is unknown, or has bad settings; ``where`` is the key path within
            the list (``2.length.target``), and further faults follow in the message.
        PluginError: a plug-in does not load or breaks its contract.
    """
    items = list(items)
    faults = rule_faults(items)
    if faults:
        first, *others = faults
        message = "\n".join([first.message, *(f"also {fault.key}: {fault.message}" for fault in others)])
        raise RuleError(message, where=first.key, remedy=first.remedy or None)
    return tuple(_build(item) for item in items)


def rule_faults(items: Sequence[str | Mapping[str, Any]]) -> tuple[Fault, ...]:
    """Return every fault of a task file's list of rules; keys are paths within the list, lines are not known.

    Raises:
        PluginError: a plug-in does not load or breaks its contract.
    """
    return tuple(fault for index, item in enumerate(items) for fault in _faults(str(index), item))


def _faults(key: str, item: Any) -> list[Fault]:
    parts = _parts(item)
    if parts is None:
        return [Fault(key, 0, 0, f"expected a rule's name, or its name and its settings, not {item!r}",
                      "write `- whitespace` or `- length: {target: [1, 200]}`")]
    name, options = parts
    try:
        rule = rule_class(name)
    except RuleError as error:
        return [Fault(key, 0, 0, error.message, error.remedy or "")]
    if not isinstance(options, Mapping):
        return [Fault(f"{key}.{name}", 0, 0, f"the settings must be keys with values, not {options!r}",
                      f"keys of {name}: {', '.join(rule.model_fields)}")]
    try:
        rule.model_validate(dict(options))
    except ValidationError as error:
        details = error.errors(include_url=False)
        return [_fault(f"{key}.{name}", rule, detail) for detail in details if not _echoes(detail, details)]
    return []


def _echoes(detail: Any, details: Sequence[Any]) -> bool:
    """Whether `detail` only repeats a fault inside of it: a list whose bad entries leave it too short."""
    place = detail["loc"]
    return any(len(other["loc"]) > len(place) and other["loc"][:len(place)] == place for other in details)


def _fault(key: str, rule: type[Rule], detail: Any) -> Fault:
    place = ".".join([key, *(str(step) for step in detail["loc"])])
    if detail["type"] == "extra_forbidden":
        return Fault(place, 0, 0, f"{rule.name} has no setting {detail['loc'][-1]!r}",
                     _nearest(str(detail["loc"][0]), tuple(rule.model_fields), "settings"))
    message = str(detail["msg"]).removeprefix("Value error, ")
    given = "" if detail["type"] in ("missing", "value_error") else f", not {detail['input']!r}"
    return Fault(place, 0, 0, message + given, "")


def _parts(item: Any) -> tuple[str, Any] | None:
    if isinstance(item, str):
        return item, {}
    if isinstance(item, Mapping) and len(item) == 1:
        (name, options), = item.items()
        return (name, {} if options is None else options) if isinstance(name, str) else None
    return None


def _build(item: Any) -> Rule:
    name, options = _parts(item) or ("", {})
    return rule_class(name).model_validate(dict(options))


def _nearest(word: str, known: Sequence[str], what: str) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known {what}: {', '.join(known)}"


def _plugged() -> dict[str, Any]:
    entries = plugin_entries(GROUP)
    for name, entry in entries.items():
        if name in _BUILT_IN:
            raise PluginError(f"{distribution_of(entry)} offers a rule called {name!r}, which is built in",
                              where=GROUP, remedy="rename the plug-in's rule, or uninstall it")
    return entries
