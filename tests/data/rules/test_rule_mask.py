"""Masking: what is personal becomes a placeholder, what only looks like it stays."""

from __future__ import annotations

import time

import pytest

from openautoglm.data.rules.mask import Mask


@pytest.mark.parametrize(("text", "masked"), [
    ("write to jo.doe+x@mail.example.co.uk.", "write to <EMAIL>."),
    ("жду на почта@пример.рф сегодня", "жду на <EMAIL> сегодня"),
    ("call +44 20 7946 0958 now", "call <PHONE> now"),
    ("call (020) 7946 0958 or 020-7946-0958", "call <PHONE> or <PHONE>"),
    ("tel. 06 12 34 56 78, 0049 30 901820", "tel. <PHONE>, <PHONE>"),
    ("from 192.168.10.254:8080", "from <IP>:8080"),
    ("from 2001:db8::8a2e:370:7334 and fe80::1", "from <IP> and <IP>"),
    ("paid with 4111 1111 1111 1111", "paid with <CARD>"),
    ("paid with 5500-0000-0000-0004.", "paid with <CARD>."),
    ("IBAN GB82 WEST 1234 5698 7654 32 PLEASE", "IBAN <IBAN> PLEASE"),
    ("DE89370400440532013000", "<IBAN>"),
])
def test_masks(text, masked):
    assert Mask().rewrite(text) == masked


@pytest.mark.parametrize("text", [
    "on 2024-01-15 10:30 and 15.01.2024", "between 1990-1995 and 2010 - 2015", "about 1 000 000 000 people",
    "1,250,000 rows, 3.14159265358", "version 1.2.3", "300.1.2.3", "at 10:20:30", "std::vector a::b",
    "order 4111 1111 1111 1112", "£20-25, rating 5 out of 5", "me @ home", "a@b",
    "0000 0000 0000 0000", "12345678", "1.5 x 10^12",
])
def test_leaves_alone(text):
    assert Mask().rewrite(text) == text


def test_iban_needs_its_check_digits():
    assert Mask(kinds=("iban",)).rewrite("GB82 WEST 1234 5698 7654 33") == "GB82 WEST 1234 5698 7654 33"


def test_bare_digits_are_phones_only_when_asked():
    assert Mask().rewrite("id 2053258100") == "id 2053258100"
    assert Mask(bare_phones=True).rewrite("id 2053258100") == "id <PHONE>"


def test_kinds_and_placeholder(make):
    rule = Mask(kinds=("email",), placeholder=r"\1[{kind}]")
    example = make("a@b.org +44 20 7946 0958", "a@b.org", mail="a@b.org")
    masked = rule.apply(example)
    assert masked.source == r"\1[EMAIL] +44 20 7946 0958"
    assert masked.fields == (("mail", r"\1[EMAIL]"),)


@pytest.mark.parametrize("text", [
    "1" * 20_000, "1 " * 10_000, "a" * 20_000 + "@", "1:" * 10_000, "A1 " * 7_000, "1." * 10_000,
    "a." * 10_000 + "@" + "b." * 10_000, "(1)" * 7_000,
], ids=["digits", "spaced", "letters", "colons", "groups", "dots", "address", "brackets"])
def test_long_runs_do_not_run_away(text):
    began = time.process_time()
    Mask().rewrite(text)
    assert time.process_time() - began < 2
