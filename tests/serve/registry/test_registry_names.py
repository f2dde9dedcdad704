"""Names and URIs: an allow-list, so that nothing which looks like a path gets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openautoglm.serve.faults import BadRequest
from openautoglm.serve.registry.names import Reference, check_alias, check_stage, nearest, parse


@pytest.mark.parametrize(("text", "reference"), [
    ("models:/reports/3", Reference("reports", number=3)),
    ("models:/reports@champion", Reference("reports", alias="champion")),
    ("models:/reports", Reference("reports")),
    ("GLM-4.0_9B", Reference("GLM-4.0_9B")),
    ("reports/12", Reference("reports", number=12)),
    ("reports@latest", Reference("reports", alias="latest")),
    ("a", Reference("a"))], ids=str)
def test_references_are_read(text: str, reference: Reference) -> None:
    assert parse(text) == reference
    assert parse(reference.uri) == reference


BAD = ["", "models:/", "models://reports/3", "/etc/passwd", "../reports", "reports/../3", "reports/..", "..", ".hidden",
       "reports.", "a..b", "reports/", "reports/0", "reports/-1", "reports/03", "reports/3/4", "reports/3@champion",
       "reports@", "@champion", "reports@a@b", "reports@Champion", "reports@-x", "reports@3", "C:\\x", "a\\b", "a b",
       "a\0b", "a\n", "\u0430bc", "reports/３", "reports/" + "9" * 10, "x" * 65, "x" * 129, "file:/reports/3",
       "http://host/x", "models:/models:/reports", "~root", "$HOME", "a%2f..%2fb", "reports/3\n", "reports@champion\n"]


@pytest.mark.parametrize("text", BAD, ids=[f"{number:02d}" for number in range(len(BAD))])
def test_all_else_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse(text)


@given(st.text(max_size=140) | st.from_regex(r"(models:/)?[\w./@-]{0,20}[/@]?[\w.-]{0,8}", fullmatch=True))
def test_a_reference_is_never_a_path(text: str) -> None:
    try:
        reference = parse(text)
    except BadRequest:
        return
    assert parse(reference.uri) == reference
    for part in (reference.name, reference.alias or "x"):
        assert not set(part) & set("/\\:\0%~$ ")
        assert ".." not in part
        assert part.isascii()


def test_latest_cannot_be_set_and_words_are_suggested() -> None:
    with pytest.raises(BadRequest, match="cannot be set"):
        check_alias("latest")
    with pytest.raises(BadRequest, match="did you mean 'production'"):
        check_stage("prodution")
    assert check_stage("archived") == "archived"
    assert nearest("Report", ["invoices", "reports"]) == "; did you mean 'reports'?"
    assert nearest("zzz", ["invoices", "reports"]) == ""
