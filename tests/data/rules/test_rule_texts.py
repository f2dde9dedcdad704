"""Rules that rewrite texts: whitespace, Unicode, mojibake, replacement, case."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest

from openautoglm.core.errors import RuleError
from openautoglm.core.values import Turn
from openautoglm.data.rules.case import Case
from openautoglm.data.rules.drop_matching import DropMatching
from openautoglm.data.rules.mojibake import Mojibake
from openautoglm.data.rules.replace import Replace
from openautoglm.data.rules.unicode import Unicode
from openautoglm.data.rules.whitespace import Whitespace


@pytest.mark.parametrize(("text", "clean"), [
    ("  a  b \t c  ", "a b c"),
    ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
    ("one\n\n\n\n\ntwo", "one\n\ntwo"),
    ("def f():  \n    return  1\n", "def f():\n    return 1"),
    ("20\u00a0€\u3000und\u2009mehr", "20 € und mehr"),
    ("bell\x07 and\x00 mark\ufeff", "bell and mark"),
    ("👩\u200d👩\u200d👧 می\u200cخواهم", "👩\u200d👩\u200d👧 می\u200cخواهم"),
    ("", ""),
])
def test_whitespace(text, clean):
    assert Whitespace().rewrite(text) == clean


@pytest.mark.parametrize(("options", "text", "clean"), [
    ({"trim": False}, " a  b ", " a b "),
    ({"collapse": False}, " a  b ", "a  b"),
    ({"plain_spaces": False}, "a\u00a0b\tc", "a\u00a0b\tc"),
    ({"newlines": "space"}, "a \n\n b", "a b"),
    ({"controls": False}, "a\x07b", "a\x07b"),
    ({"invisible": True}, "co\u00adop\u200b", "coop"),
    ({"blank_lines": 0}, "a\n\nb", "a\nb"),
])
def test_whitespace_options(options, text, clean):
    assert Whitespace(**options).rewrite(text) == clean


def test_fields_and_turns_get_the_treatment_of_the_source(make):
    example = make("a  b", "c  d", name="e  f").with_(turns=(Turn("user", "g  h"),))
    cleaned = Whitespace().apply(example)
    assert (cleaned.source, cleaned.target) == ("a b", "c d")
    assert cleaned.fields == (("name", "e f"),)
    assert cleaned.turns == (Turn("user", "g h"),)
    only_target = Whitespace(on=("target",)).apply(example)
    assert only_target == example.with_(target="c d")


@pytest.mark.parametrize("place", ["source", "target", "name"])
def test_padding_at_the_edge_of_any_text_is_seen(make, place):
    for padded in (" x", "x ", "\tx"):
        texts = {"source": "s", "target": "t", "name": "n", place: padded}
        assert Whitespace().apply(make(**texts)) == make(**{**texts, place: "x"})


@pytest.mark.data
@pytest.mark.slow
def test_whitespace_finds_the_5796_e2e_references_with_double_spaces(e2e_train):
    rule = Whitespace(on=("target",))
    changed = [example for example in e2e_train if rule.apply(example) is not example]
    assert sum("  " in example.target for example in changed) == 5796
    assert len(changed) == 5798  # two more hold line ends of another system


@pytest.mark.parametrize(("form", "text", "clean"), [
    ("NFC", "Cafe\u0301", "Café"), ("NFD", "é", "e\u0301"), ("NFKC", "ﬁ ½ Ａ", "fi 1⁄2 A"),
    ("NFC", "ﬁ ½ Ａ", "ﬁ ½ Ａ"),
])
def test_unicode(form, text, clean):
    assert Unicode(form=form).rewrite(text) == clean


@pytest.mark.parametrize("text", [
    "Café", "£20-25", "naïve façade — “quoted”", "一壶酒，独酌无相亲。", "Ångström São Tomé", "été à côté",
    "Москва", "¿Qué?", "ÉCOLE ÂGÉE", "20 °C ± 1", "Ünïcödé", "Ã", "50 €",
])
def test_mojibake_leaves_good_text_alone(text):
    assert Mojibake().rewrite(text) is text


@pytest.mark.parametrize(("text", "clean"), [
    ("CafÃ© Adriatic", "Café Adriatic"), ("Â£20", "£20"), ("voilÃ le travail", "voilà le travail"),
    ("itâ€™s", "it’s"), ("ä¸€å£¶é…’", "一壶酒"), ("sÃƒÂ³", "só"), ("\x93quoted\x94", "“quoted”"),
])
def test_mojibake_repairs(text, clean):
    assert Mojibake().rewrite(text) == clean


def test_mojibake_repairs_more_when_asked():
    assert Mojibake().rewrite("&lt;b&gt; “x”") == "&lt;b&gt; “x”"
    assert Mojibake(also=("entities", "quotes")).rewrite("&lt;b&gt; “x”") == '<b> "x"'


@pytest.mark.data
def test_mojibake_on_the_cases_of_ftfy(shared_data):
    """All 151 cases come out as expected, the 31 which must stay untouched too; its known failures apart."""
    counts: Counter[tuple[str, bool]] = Counter()
    for path in sorted((shared_data / "ftfy-cases" / "tests" / "test-cases").glob("*.json")):
        for case in json.loads(path.read_text(encoding="utf-8")):
            wanted = case.get("fixed-encoding", case["fixed"])
            counts[case["expect"], Mojibake().rewrite(case["original"]) == wanted] += 1
    assert counts["pass", True] == 151
    assert counts["pass", False] == 0
    assert counts["fail", True] + counts["fail", False] == 10


def test_replace_uses_groups(make):
    rule = Replace(pattern=r"(\d+) USD", by=r"$\1")
    assert rule.apply(make("12 USD", "costs 5 USD", price="12 USD")) == make("$12", "costs $5", price="$12")


def test_runaway_pattern_is_stopped_and_named(make):
    text = "a" * 60 + "!"
    began = time.monotonic()
    for kind in (Replace, DropMatching):
        rule = kind(pattern="(a|aa)+$", timeout_s=0.05)
        with pytest.raises(RuleError, match=r"^rows.csv:1: .*'\(a\|aa\)\+\$' took longer than 0.05 s"):
            rule.apply(make(target=text))
    assert time.monotonic() - began < 5


def test_drop_matching(make):
    example = make("source 1", "target")
    assert DropMatching(pattern=r"\d").apply(example).reason == r"source matches '\\d'"
    assert DropMatching(pattern=r"\d", on=("target",)).apply(example) is example
    assert DropMatching(pattern=r"\d", when="missing").apply(example).reason == r"target does not match '\\d'"
    assert DropMatching(pattern="SOURCE").apply(example) is example
    assert DropMatching(pattern="SOURCE", ignore_case=True).apply(example) is not example


def test_case(make):
    assert Case().apply(make("Ab", "CÉ")) == make("ab", "cé")
    assert Case(to="upper", on=("target",)).apply(make("Ab", "cé")) == make("Ab", "CÉ")
    assert Case(to="fold").apply(make("Straße", "x")).source == "strasse"
