"""From a task file's list to rules: names, settings, faults with their place, plug-ins."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openautoglm.core.errors import PluginError, RuleError
from openautoglm.data.rules.base import Drop
from openautoglm.data.rules.contract import check_rule
from openautoglm.data.rules.registry import (
    DEFAULT_RULES,
    build_rules,
    rule_class,
    rule_faults,
    rule_names,
)

PLUGIN = '''
from typing import ClassVar
from pydantic import Field
from openautoglm.data.rules.base import Drop, Rule

class Shout(Rule):
    """Drop targets that shout."""

    name: ClassVar[str] = "shout"
    marks: int = Field(3, description="How many exclamation marks make a shout.")

    def apply(self, example):
        return Drop("the target shouts") if example.target.count("!") >= self.marks else example
'''


@pytest.fixture
def plug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Install a distribution of one module and its entry points into a folder on the path, as pip would."""
    made: list[str] = []

    def install(distribution: str, code: str, **entries: str) -> None:
        folder = tmp_path / distribution
        metadata = folder / f"{distribution}-1.2.dist-info"
        metadata.mkdir(parents=True)
        (folder / f"{distribution}.py").write_text(code, encoding="utf-8")
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        lines = [f"{name} = {value}" for name, value in entries.items()]
        (metadata / "entry_points.txt").write_text("[openautoglm.rules]\n" + "\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        made.append(distribution)

    yield install
    for module in made:
        sys.modules.pop(module, None)


def test_items_become_rules_in_order():
    rules = build_rules(["whitespace", {"length": {"target": [1, 200], "unit": "words"}}, {"nulls": None}])
    assert [rule.name for rule in rules] == ["whitespace", "length", "nulls"]
    assert rules[1].target == (1, 200)
    assert rules[0].item() == "whitespace"
    assert rules[1].item() == {"length": {"target": [1, 200], "unit": "words"}}


@pytest.mark.parametrize(("item", "key", "message", "remedy"), [
    ("whitespce", "1", "no rule is called 'whitespce'", "'whitespace'"),
    ({"length": {"targt": [1, 2]}}, "1.length.targt", "no setting 'targt'", "'target'"),
    ({"length": {"target": [5, 2]}}, "1.length.target", "lower bound 5 is above the upper bound 2", ""),
    ({"length": {"unit": "lines"}}, "1.length.unit", "'characters' or 'words', not 'lines'", ""),
    ({"length": 4}, "1.length", "must be keys with values, not 4", "target"),
    ({"replace": {"by": "x"}}, "1.replace.pattern", "required", ""),
    ({"replace": {"pattern": "(a"}}, "1.replace.pattern", "not a regular expression", ""),
    ({"replace": {"pattern": "a", "by": r"\2"}}, "1.replace", "does not fit the pattern", ""),
    ({"script": {"allowed": ["Latn1"]}}, "1.script.allowed.0", "not the name", ""),
    ({"values": {"allowed": {"open": [True]}}}, "1.values.allowed.open.0", "string, not True", ""),
    ({"length": {}, "case": {}}, "1", "expected a rule's name", "- whitespace"),
    (3, "1", "expected a rule's name", "- whitespace"),
])
def test_faults_name_place_and_remedy(item, key, message, remedy):
    (fault,) = rule_faults(["case", item])
    assert fault.key == key
    assert message in fault.message
    assert remedy in fault.remedy
    with pytest.raises(RuleError, match=f"^{key}:"):
        build_rules(["case", item])


def test_all_faults_are_reported_at_once():
    faults = rule_faults(["nope", {"length": {"unit": "x", "source": [3, 1]}}, "case"])
    assert [fault.key for fault in faults] == ["0", "1.length.source", "1.length.unit"]


def test_plugin_rule_is_found_built_and_keeps_the_contract(plug, make):
    plug("shouting", PLUGIN, shout="shouting:Shout")
    assert "shout" in rule_names()
    (rule,) = build_rules([{"shout": {"marks": 2}}])
    assert rule.apply(make(target="No!!")) == Drop("the target shouts")
    check_rule(rule_class("shout"), {"marks": 1})
    (fault,) = rule_faults([{"shout": {"mark": 2}}])
    assert fault.remedy == "did you mean 'marks'?"


@pytest.mark.parametrize(("code", "entries", "message"), [
    (PLUGIN, {"whitespace": "shouting:Shout"}, "shouting 1.2 offers a rule called 'whitespace', .* built in"),
    (PLUGIN, {"loud": "shouting:Shout"}, "of shouting 1.2 is called 'shout', its entry point 'loud'"),
    ("Shout = 3", {"shout": "shouting:Shout"}, "of shouting 1.2 is not a cleaning rule"),
    ("import no_such_module", {"shout": "shouting:Shout"}, "'shout' of shouting 1.2 does not load"),
])
def test_bad_plugins_are_named(plug, code, entries, message):
    plug("shouting", code, **entries)
    with pytest.raises(PluginError, match=message):
        build_rules([next(iter(entries)) if "whitespace" not in entries else "shout"])


def test_broken_plugin_does_not_hinder_built_in_rules(plug):
    plug("shouting", "import no_such_module", shout="shouting:Shout")
    assert build_rules(["whitespace"])[0].name == "whitespace"


def test_default_rules_change_nothing_in_clean_text(make):
    example = make("name[Café £20]", "Ein “schönes” Café, 一壶酒，独酌无相亲。", name="Café")
    for rule in build_rules(DEFAULT_RULES):
        assert rule.apply(example) is example
