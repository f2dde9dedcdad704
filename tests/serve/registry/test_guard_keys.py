"""Keys as text, scopes, hosts, and what is remembered of checks."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openautoglm.core.errors import TaskError
from openautoglm.serve.faults import BadRequest, Forbidden
from openautoglm.serve.guard import secret
from openautoglm.serve.guard.hosts import is_loopback, refuse_open
from openautoglm.serve.guard.remembered import Remembered, Seen
from openautoglm.serve.guard.rights import ANYONE, SCOPES, Who, check_scopes
from openautoglm.serve.registry.keys import KeyRecord


def test_a_key_is_checked_by_its_hash() -> None:
    key_id, token, hashed = secret.mint()
    assert token.startswith(f"autoglm_{key_id}_")
    assert secret.id_of(token) == key_id
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert token not in hashed
    assert secret.verify(token, hashed)
    for wrong in (token[:-1] + ("A" if token[-1] != "A" else "B"), token + "A", token.upper(), "", key_id, "\ud800"):
        assert not secret.verify(wrong, hashed)
    assert not secret.verify(token, None)
    assert not secret.verify(token, "no hash at all")


def test_keys_differ_and_have_one_form() -> None:
    made = [secret.mint()[1] for _ in range(5)]
    assert len(set(made)) == 5
    allowed = set(string.ascii_letters + string.digits + "_-")
    assert all(set(token) <= allowed and len(token) == len(made[0]) for token in made)


@given(st.text(max_size=80) | st.from_regex(r"autoglm_[a-z0-9]{10,13}_[A-Za-z0-9_-]{41,45}", fullmatch=True))
def test_only_that_form_has_an_id(text: str) -> None:
    found = secret.id_of(text)
    if found is not None:
        assert len(found) == 12
        assert text[:21] == f"autoglm_{found}_"
        assert len(text) == 64


def test_scopes() -> None:
    assert check_scopes(["infer", "admin"]) == {"infer", "admin"}
    for wrong in ([], ["infer", "root"], ["Infer"]):
        with pytest.raises(BadRequest, match="infer, admin, metrics"):
            check_scopes(wrong)
    Who(frozenset({"infer"})).require("infer")
    for scope in ("admin", "metrics"):
        with pytest.raises(Forbidden, match=scope):
            Who(frozenset({"infer"})).require(scope)  # type: ignore[arg-type]
    with pytest.raises(Forbidden):
        Who(frozenset({"admin"})).require("infer")
    assert ANYONE.scopes == set(SCOPES)
    assert Who(frozenset(), "abc").actor == "key:abc"
    assert Who(frozenset(), "abc").name == "abc"
    assert len({Who(frozenset(), key).salt for key in ("abc", "abd", "")}) == 3
    assert ANYONE.salt == b""


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LOCALHOST.",
                                  "::ffff:127.0.0.1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    refuse_open(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.org", "localhost.example.org", "",
                                  "127.0.0.1.example.org", "2130706433", "::ffff:10.0.0.1", "127.1"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(TaskError, match="autoglm keys create"):
        refuse_open(host)


def seen(memory: Remembered, token: str) -> Seen:
    return Seen(memory.digest(token), KeyRecord(token, token, "h", frozenset()), 0.0, 0.0, 0.0)


def test_what_is_remembered_is_bounded_and_forgotten() -> None:
    memory = Remembered(3)
    for token in ("a", "b", "c"):
        memory.put(seen(memory, token))
    assert memory.get(memory.digest("a")) is not None
    memory.put(seen(memory, "d"))
    assert [memory.get(memory.digest(token)) is not None for token in "abcd"] == [True, False, True, True]
    memory.forget(lambda record: record.key_id == "c")
    memory.drop(memory.digest("d"))
    memory.drop(memory.digest("d"))
    assert [memory.get(memory.digest(token)) is not None for token in "acd"] == [True, False, False]


def test_digests_are_of_one_process_and_hide_the_key() -> None:
    first, second = Remembered(1), Remembered(1)
    assert first.digest("key") != second.digest("key")
    assert first.digest("key") == first.digest("key") != first.digest("kez")
    first.put(seen(first, "autoglm_secret"))
    assert "autoglm_secret" not in str(list(first._seen))
    assert isinstance(first.digest("\ud800"), bytes)


def test_a_digest_is_compared_whole() -> None:
    memory = Remembered(2)
    one = seen(memory, "a")
    memory._seen[memory.digest("b")] = one  # a slip of the table must let nobody in
    assert memory.get(memory.digest("b")) is None
