"""Rules on single fields: e-mail, values, outliers, rare values."""

from __future__ import annotations

import random
from statistics import fmean, stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from openautoglm.core.errors import RuleError
from openautoglm.data.rules.base import Drop
from openautoglm.data.rules.email import Email, is_email
from openautoglm.data.rules.outliers import Moments, Outliers, Reservoir, number
from openautoglm.data.rules.rare import Rare
from openautoglm.data.rules.values import Values


@pytest.mark.parametrize("text", [
    "jo@example.org", "jo.o'neil+x@a-b.co.uk", "почта@пример.рф", "a@xn--e1aybc.xn--p1ai"])
def test_valid_addresses(text):
    assert is_email(text)


@pytest.mark.parametrize("text", [
    "", "jo", "jo@", "@x.org", "jo@org", "jo..x@a.org", ".jo@a.org", "jo@a..org", "j o@a.org", "jo@-a.org",
    "jo@a.o", "jo@a.org ", "a" * 65 + "@a.org", "a@" + "b." * 130 + "org"])
def test_invalid_addresses(text):
    assert not is_email(text)


def test_email(make):
    good, bad = make(mail=" jo@example.org "), make(mail="jo at example")
    assert Email(fields=("mail",)).apply(good) is good
    assert Email(fields=("mail",)).apply(bad) == Drop("field 'mail' is no e-mail address: 'jo at example'")
    assert Email(fields=("other",)).apply(good) is good
    assert Email(fields=("other",), absent="drop").apply(good) == Drop("field 'other' is absent")


def test_values(make):
    rule = Values(allowed={"size": ["S", "M"], "stars": [1, 2]}, patterns={"zip": r"\d{5}|none"})
    fine = make(size="M", stars="2", zip="35233")
    assert rule.apply(fine) is fine
    assert rule.apply(make(size="m")) == Drop("field 'size' may not be 'm'")
    assert rule.apply(make(zip="352331")) == Drop(r"field 'zip' does not match '\\d{5}|none': '352331'")
    assert rule.apply(make()) == make()
    folded = Values(allowed={"size": ["s"]}, ignore_case=True)
    assert folded.apply(fine) == Drop("field 'size' may not be 'M'")
    assert folded.apply(make(size="S")) == make(size="S")
    assert Values(allowed={"hue": ["s"]}, absent="drop").apply(fine) == Drop("field 'hue' is absent")
    with pytest.raises(ValidationError, match="at least one field"):
        Values()


@pytest.mark.parametrize(("text", "amount"), [
    ("12", 12.0), ("-3.5", -3.5), ("£1,200.50", 1200.5), ("78%", 78.0), ("4 patients", 4.0), (".5", 0.5),
    ("1e3", 1000.0),
    ("20-25", None), ("x", None), ("", None), ("1.2.3", None), ("2053x58100", None), ("9" * 65, None),
])
def test_number(text, amount):
    assert number(text) == amount


def test_number_with_decimal_comma():
    assert number("1.200,5", ",") == 1200.5


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50))
def test_moments_agree_with_two_passes(values):
    moments = Moments()
    for value in values:
        moments.add(value)
    low, high = moments.limits(2.0)
    assert (low + high) / 2 == pytest.approx(fmean(values), rel=1e-6, abs=1e-6)
    assert (high - low) / 4 == pytest.approx(stdev(values), rel=1e-6, abs=1e-6)


def test_reservoir_is_exact_up_to_its_size_and_bounded_beyond():
    reservoir = Reservoir(101)
    for value in range(101):
        reservoir.add(float(value))
    assert reservoir.limits(1.0) == (25.0 - 50.0, 75.0 + 50.0)
    large, rng = Reservoir(1000), random.Random(1)
    for _ in range(50_000):
        large.add(rng.random())
    low, high = large.limits(0.0)
    assert (low, high) == (pytest.approx(0.25, abs=0.05), pytest.approx(0.75, abs=0.05))


@pytest.mark.parametrize("method", ["iqr", "zscore"])
def test_outliers_are_learnt_and_dropped(make, method):
    column = [make(age=str(20 + place % 40)) for place in range(200)] + [make(age="20000")]
    rule = Outliers(fields=("age",), method=method).fit(iter(column))
    assert [place for place, example in enumerate(column) if rule.apply(example) is not example] == [200]
    assert rule.apply(make(age="unknown")) == make(age="unknown")
    assert Outliers.model_validate(rule.item()["outliers"]) == rule
    strict = rule.model_copy(update={"not_numeric": "drop"})
    assert strict.apply(make(age="unknown")) == Drop("field 'age' is no number: 'unknown'")


def test_given_limits_need_no_fit_and_few_numbers_give_none(make):
    given_limits = Outliers(fields=("age",), limits={"age": (0, 120)})
    assert given_limits.fit([]) is given_limits
    assert given_limits.apply(make(age="121")) == Drop("field 'age' is 121, outside 0 to 120")
    few = Outliers(fields=("age",)).fit([make(age="1"), make(age="99")])
    assert few.limits == {"age": None}
    assert few.apply(make(age="1e9")) == make(age="1e9")


def test_outliers_name_what_is_missing(make):
    with pytest.raises(RuleError, match=r"(?s)no example has a field 'agee'.*did you mean 'age'"):
        Outliers(fields=("agee",)).fit([make(age="1")])
    with pytest.raises(RuleError, match="call fit first"):
        Outliers(fields=("age",)).apply(make(age="1"))


def test_rare_values(make):
    column = [make(hue="red")] * 5 + [make(hue="rxd")]
    rule = Rare(fields=("hue",)).fit(column)
    assert rule.common == {"hue": ("red",)}
    assert rule.apply(column[0]) is column[0]
    assert rule.apply(column[-1]) == Drop("field 'hue' is rarely 'rxd'")
    with pytest.raises(RuleError, match="more than 1 distinct values"):
        Rare(fields=("hue",), max_values=1).fit(column)
    with pytest.raises(RuleError, match="no example has a field 'size'"):
        Rare(fields=("size",)).fit(column)
