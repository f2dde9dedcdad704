"""What of a record a text covers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openautoglm.text.coverage import coverage, mentions, missing, normalise

FIELDS = (("name", "The Punter"), ("price", "£20-25"), ("area", ""), ("near", "Café Brazil"))


def test_the_share_counts_fields_with_a_value() -> None:
    text = "the PUNTER, near Cafe Brazil, costs £20-25."
    assert coverage(FIELDS, text) == 1.0
    assert coverage(FIELDS, "The Punter near Café Rouge") == 1 / 3
    assert missing(FIELDS, "The Punter near Café Rouge") == (("price", "£20-25"), ("near", "Café Brazil"))
    assert coverage((), "x") == coverage((("a", " "),), "x") == 1.0


def test_values_end_at_word_borders() -> None:
    assert not mentions("a riverside pub", "river")
    assert not mentions("costs 250", "25")
    assert mentions("by the river.", "river")
    assert mentions("窈窕淑女在河之洲", "河"), "no borders where no spaces are written"


def test_the_plain_form() -> None:
    assert normalise("Café  Brazil's (£20-25)") == "cafe brazil s 20 25"
    assert normalise("ﬁve_stars ＡＢ") == "five stars ab"


@given(st.text(), st.text(), st.text())
def test_a_value_is_found_where_it_was_put(before: str, value: str, after: str) -> None:
    assert mentions(f"{before} {value} {after}", value)


@given(st.text())
def test_the_plain_form_is_its_own_plain_form(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
