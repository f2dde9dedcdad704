"""Every rule keeps the contract, and the contract catches rules that do not."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from openautoglm.core.errors import PluginError
from openautoglm.core.values import Example, Origin, Turn
from openautoglm.data.rules.base import Drop, Rule
from openautoglm.data.rules.contract import EXAMPLES, check_apply, check_rule
from openautoglm.data.rules.registry import rule_class, rule_names

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "case": [{}, {"to": "upper"}, {"to": "fold", "on": ["target"]}],
    "containment": [{}, {"fields": ["name"], "min_share": 0.5, "whole_words": True}],
    "drop_matching": [{"pattern": "plain"}, {"pattern": "a", "when": "missing", "ignore_case": True}],
    "email": [{"fields": ["mail"]}, {"fields": ["mail"], "absent": "drop"}],
    "length": [{}, {"source": [2, 40], "target": [None, 30], "unit": "words"}],
    "mask": [{}, {"kinds": ["email"], "placeholder": "***"}],
    "mojibake": [{}, {"also": ["entities", "quotes", "widths"]}],
    "nulls": [{}, {"action": "fill", "fill": "unknown", "fields": ["name", "absent"]}],
    "outliers": [{"fields": ["amount"]}, {"fields": ["amount"], "method": "zscore", "threshold": 1.0}],
    "rare": [{"fields": ["name"]}, {"fields": ["mail"], "min_count": 2}],
    "ratio": [{}, {"least": 0.5, "most": 2, "unit": "words"}],
    "repetition": [{}, {"ngram": 1, "max_run": 2}],
    "replace": [{"pattern": "a+", "by": "b"}, {"pattern": "(e)(r)", "by": r"\2\1", "ignore_case": True}],
    "script": [{"allowed": ["Latin"]}, {"allowed": ["Han", "Hiragana"], "min_share": 0.5, "on": ["source"]}],
    "unicode": [{}, {"form": "NFKC"}],
    "values": [{"allowed": {"name": ["x", 3]}}, {"patterns": {"amount": r"\d"}, "absent": "drop"}],
    "whitespace": [{}, {"newlines": "space"}, {"trim": False, "controls": False, "invisible": True},
                   {"collapse": False, "plain_spaces": False, "blank_lines": 0}],
}
CASES = [(name, options) for name, several in SETTINGS.items() for options in several]
REWRITERS = ("case", "mask", "mojibake", "nulls", "unicode", "whitespace")
REWRITING = [case for case in CASES if case[0] in REWRITERS]


def test_every_built_in_rule_has_cases():
    assert set(SETTINGS) == set(rule_names())


@pytest.mark.parametrize(("name", "options"), CASES)
def test_rule_keeps_the_contract(name, options):
    rule = check_rule(rule_class(name), options)
    assert rule.name == name


@pytest.mark.parametrize(("name", "options"), REWRITING)
@settings(deadline=None, max_examples=40)
@given(text=st.text(alphabet=st.one_of(
    st.sampled_from("a  \t\n\r\x0b\x00|é\u00a0\u3000\u2028Ã©Âe\u0301ﬁ@.+1234"),
    st.characters(codec="utf-8")), max_size=30))
def test_rewriting_keeps_the_contract_on_any_text(name, options, text):
    example = Example(text, f"{text}|{text}", Origin("any", 1), (("name", text),), (Turn("user", text),))
    check_apply(rule_class(name).model_validate(options), example)


class Faulty(Rule):
    """A rule whose verb the tests exchange."""

    name: ClassVar[str] = "faulty"
    size: int = Field(1, description="A setting.")

    def apply(self, example: Example) -> Example | Drop:
        return example


def _variant(**members: Any) -> type[Rule]:
    made = type("Variant", (Faulty,), {"__doc__": "A variant.", "__module__": __name__, **members})
    globals()["Variant"] = made  # where pickle looks for it
    return made


@pytest.mark.parametrize(("members", "message"), [
    ({"apply": lambda self, example: example.with_()}, "copy where it changed nothing"),
    ({"apply": lambda self, example: example.with_(target=example.target + "!")}, "changes its own result"),
    ({"apply": lambda self, example: example.with_(origin=Origin("else", 0))}, "changes the origin"),
    ({"apply": lambda self, example: Drop("")}, "needs a reason"),
    ({"apply": lambda self, example: None}, "NoneType"),
    ({"apply": lambda self, example, seen=[]: seen.append(1) or Drop(str(len(seen)))}, "answers differently"),
    ({"apply": lambda self, example: object.__setattr__(example, "target", "x") or example}, "in place"),
    ({"name": "Not A Word"}, "lower-case word"),
    ({"__doc__": None}, "no docstring"),
    ({"needs_fit": True, "fit": lambda self, _: object.__setattr__(self, "size", 2) or self}, "in place"),
    ({"__annotations__": {"more": int}, "more": 1}, "no description"),
])
def test_contract_catches(members, message):
    with pytest.raises(PluginError, match=message):
        check_rule(_variant(**members), {}, [Example("s", "t", Origin("f", 1))])


def test_faulty_itself_is_fine_and_examples_are_varied():
    assert check_rule(Faulty).name == "faulty"
    assert any(example.turns for example in EXAMPLES)
    assert any(example.fields and not example.turns for example in EXAMPLES)
