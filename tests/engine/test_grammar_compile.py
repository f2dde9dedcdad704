"""What clients send is tried out elsewhere, bounded, refused by name, and kept within a budget."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grammar_tools import allowed, end_id, feed, resident_bytes, tokenizer, write
from pydantic import ValidationError

from openautoglm.core import extras
from openautoglm.core.errors import GenerationError, MissingExtraError, ResourceError
from openautoglm.engine.grammar import GrammarCompiler
from openautoglm.engine.grammar_check import Grammar, GrammarLimits

pytest.importorskip("llguidance", reason="the extra `serve` is not installed")

SLOW = {"type": "integer", "multipleOf": 999983}  # half a gigabyte and many seconds, without limits
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def compiler() -> Iterator[GrammarCompiler]:
    with GrammarCompiler(tokenizer().pieces) as made:
        yield made


def refusal(compiler: GrammarCompiler, **form: Any) -> GenerationError:
    with pytest.raises(GenerationError) as caught:
        compiler.compile(Grammar(**form), [end_id()])
    assert caught.value.remedy
    return caught.value


def test_exactly_one_form_is_given() -> None:
    for form in ({}, {"regex": "a", "choice": ("b",)}, {"json_object": True, "json_schema": {}}, {"choice": ()}):
        with pytest.raises(ValidationError):
            Grammar(**form)
    assert Grammar(json_schema=False).kind == "json_schema"
    assert Grammar(json_object=True).kind == "json_object"


def test_every_form_compiles(compiler: GrammarCompiler) -> None:
    dice = np.random.default_rng(0)
    assert write(compiler.compile(Grammar(choice=("yes", "no / maybe")), [end_id()]), dice) in ("yes", "no / maybe")
    assert write(compiler.compile(Grammar(regex=r"\d{3}/[ab]\/"), [end_id()]), dice)[3:4] == "/"
    assert write(compiler.compile(Grammar(json_schema={"const": {"a": 1}}), [end_id()]), dice).startswith("{")
    feed(compiler.compile(Grammar(json_object=True)), '{"any": [1, "thing", {"é": null}]}')
    compact = compiler.compile(Grammar(json_object=True, compact=True))
    feed(compact, '{"a":[1,')
    assert not allowed(compact) & {i for i, piece in enumerate(tokenizer().pieces) if piece[:1] == b" "}
    feed(compiler.compile(Grammar(json_schema=True)), "[true]")


@pytest.mark.parametrize(("schema", "where", "what"), [
    ({"properties": {"x": {"items": {"type": "string"}, "uniqueItems": True}}}, "json_schema.properties.x",
     "uniqueItems"),
    ({"anyOf": [{"type": "null"}, {"not": {"type": "string"}}]}, "json_schema.anyOf[1]", "not"),
    ({"$defs": {"d": {"type": "strin"}}, "$ref": "#/$defs/d"}, "json_schema.$defs.d", "strin"),
    ({"items": {"$ref": "#/$defs/none"}}, "json_schema.items", "none"),
    ({"type": "string", "pattern": "(a"}, "json_schema", "unclosed"),
    ({"type": "object", "properties": {"n": {"type": "integer", "minimum": 3, "maximum": 1}}, "required": ["n"]},
     "json_schema", "nsatisfiable"),
    ({"properties": {"r": {"$ref": "http://127.0.0.1:1/schema.json"}}}, "json_schema.properties.r.$ref",
     "nothing is fetched"),
    ({"$defs": {"d": {"$ref": "file:///etc/hostname"}}}, "json_schema.$defs.d.$ref", "nothing is fetched"),
    ({"$id": "http://127.0.0.1:1/a", "$ref": "b"}, "json_schema.$ref", "nothing is fetched"),
    ({"x-guidance": {"lenient": True}}, "json_schema.x-guidance", "own options"),
    ({"enum": [1, 2**53 + 1]}, "json_schema", "would round"),
    ({"const": float("nan")}, "json_schema", "is no JSON"),
    ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "json_schema", "cannot be followed to an end"),
    (False, "json_schema", "cannot be compiled"),
])
def test_a_faulty_schema_is_refused_by_its_part(compiler: GrammarCompiler, schema: Any, where: str, what: str) -> None:
    error = refusal(compiler, json_schema=schema)
    assert error.where == where
    assert what in error.message


@pytest.mark.parametrize(("regex", "what"), [
    ("(abc", "unclosed group"), (r"(?=a)b", "look-around"), (r"(a)\1", "backreferences"), ("", "is empty"),
    ("a\\", "cannot be compiled"), ("\ud800", "not Unicode"), (r"[^\s\S]", "cannot be followed to an end"),
])
def test_a_faulty_regex_is_refused(compiler: GrammarCompiler, regex: str, what: str) -> None:
    error = refusal(compiler, regex=regex)
    assert error.where == "regex"
    assert what in error.message


@pytest.mark.parametrize("choice", ["", "\udc00"])
def test_a_faulty_choice_is_refused(compiler: GrammarCompiler, choice: str) -> None:
    assert refusal(compiler, choice=("good", choice)).where == "choice[1]"


def test_size_and_depth_have_limits(compiler: GrammarCompiler) -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"items": deep}
    assert "levels deep" in refusal(compiler, json_schema=deep).message
    wide = {"enum": [f"value {number}" for number in range(10_000)]}
    assert "65536 are allowed" in refusal(compiler, json_schema=wide).message
    assert "65536 are allowed" in refusal(compiler, regex="a?" * 40_000).message
    assert "65536 are allowed" in refusal(compiler, choice=tuple(map(str, range(20_000)))).message


BOMBS = [
    {"json_schema": SLOW},
    {"json_schema": {"allOf": [{"anyOf": [{"type": "object", "required": [f"{letter}{number}"],
                                           "properties": {f"{letter}{number}": {"type": "string"}}}
                                          for number in range(30)]} for letter in "abc"]}},
    {"json_schema": {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(1400)}}},
    {"regex": "[a-z]{0,5000}([a-z]{0,5000}){0,50}"},
    {"regex": "".join(f"[{chr(0x4e00 + number)}]?" for number in range(5000))},
    {"json_schema": {"allOf": [{"type": "string", "pattern": f"(.*{chr(97 + number)}.{{{number + 5}}}){{3}}"}
                               for number in range(12)]}},
]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(BOMBS)))
def test_bombs_are_refused_and_leave_nothing(number: int) -> None:
    limits = GrammarLimits(time_s=3, memory_bytes=96 << 20)
    with GrammarCompiler(tokenizer().pieces, limits) as compiler:
        compiler.compile(Grammar(regex="a"))
        before, process = resident_bytes(), compiler.process_id
        error = refusal(compiler, **BOMBS[number])
        assert any(word in error.message for word in ("too complex", "too large", "Unable to determine"))
        assert resident_bytes() - before < 16 << 20
        assert compiler.process_id == process
        assert process is not None
        assert resident_bytes(process) < 96 << 20
        feed(compiler.compile(Grammar(choice=("still here",))), "still here")


@pytest.mark.parametrize("regex", ["(a{1000}){1000}", "((a{1000}){1000}){1000}", "a{1000000000}", "(x+x+)+y",
                                   "(.{1000}){1000}", "(a|aa)+(b|a*)*$"])
def test_huge_repetition_costs_nothing_until_it_is_written(compiler: GrammarCompiler, regex: str) -> None:
    """Tables grow with the text: what would burst a table built at once is harmless here, and bounded later."""
    before = resident_bytes()
    state = compiler.compile(Grammar(regex=regex), [end_id()])
    assert allowed(state)
    assert resident_bytes() - before < 16 << 20


def test_time_is_limited_and_the_work_is_killed() -> None:
    limits = GrammarLimits(time_s=0.2, memory_bytes=1 << 30)
    with GrammarCompiler(tokenizer().pieces, limits) as compiler:
        error = refusal(compiler, json_schema=SLOW)
        assert "longer than 0.2 s" in error.message
        assert error.where == "json_schema"
        assert children(compiler.process_id) == []


def test_memory_is_limited() -> None:
    limits = GrammarLimits(time_s=60, memory_bytes=16 << 20)
    with GrammarCompiler(tokenizer().pieces, limits) as compiler:
        assert "more than 16 MiB" in refusal(compiler, json_schema=SLOW).message


def children(pid: int | None) -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()
            and _parent(entry) == pid]


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


def test_a_dead_process_is_replaced() -> None:
    with GrammarCompiler(tokenizer().pieces) as compiler:
        compiler.compile(Grammar(regex="a+"))
        first = compiler.process_id
        assert first is not None
        os.kill(first, signal.SIGKILL)
        os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
        compiler.compile(Grammar(regex="b+"))
        assert compiler.process_id != first
        compiler.close()
        assert compiler.process_id is None
        compiler.compile(Grammar(regex="a+"))


def test_a_process_that_cannot_start_is_an_error_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with GrammarCompiler(tokenizer().pieces) as compiler, pytest.raises(ResourceError, match="does not answer"):
        compiler.compile(Grammar(regex="a"))


def test_the_cache_is_bounded_in_bytes_and_keeps_what_is_used() -> None:
    limits = GrammarLimits(cache_bytes=400_000)
    with GrammarCompiler(tokenizer().pieces, limits) as compiler:
        kept = Grammar(choice=("kept",))
        for number in range(12):
            compiler.compile(kept)
            compiler.compile(Grammar(choice=(f"other {number}",)))
            assert 0 < compiler.cached_bytes <= 400_000
        assert 1 < compiler.cached < 12
        compiler.close()
        assert compiler.cached_bytes == 0
    with GrammarCompiler(tokenizer().pieces, GrammarLimits(cache_bytes=0)) as none:
        feed(none.compile(kept), "kept")
        assert none.cached == 0


def test_a_known_grammar_needs_no_process(compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
    grammar = Grammar(regex="[0-9]{4}")
    compiler.compile(grammar)
    monkeypatch.setattr(compiler._process, "ask", None)
    feed(compiler.compile(grammar), "2024")


def test_many_threads_share_one_compilation(compiler: GrammarCompiler) -> None:
    asked: list[dict[str, Any]] = []
    ask = compiler._process.ask

    def count(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return ask(request)

    compiler._process.ask = count  # type: ignore[assignment]
    failures: list[BaseException] = []

    def work() -> None:
        try:
            feed(compiler.compile(Grammar(regex="(shared){2}"), [end_id()]), "sharedshared")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    del compiler._process.ask
    assert failures == []
    assert len(asked) == 1


def test_too_many_waiting_are_refused() -> None:
    with GrammarCompiler(tokenizer().pieces, GrammarLimits(waiting=0)) as compiler:
        compiler._waiting = 1
        with pytest.raises(ResourceError, match="1 grammars wait"):
            compiler.compile(Grammar(regex="a"))


def test_without_the_library_the_remedy_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    with GrammarCompiler(tokenizer().pieces) as compiler:
        monkeypatch.setattr(extras.importlib, "import_module", missing)
        with pytest.raises(MissingExtraError, match="llguidance is not installed"):
            compiler.compile(Grammar(regex="a"))


def test_torch_is_not_imported() -> None:
    code = ("import sys; from openautoglm.engine.grammar import *;"
            "c = GrammarCompiler([bytes([b]) for b in range(128)]);"
            "s = c.compile(Grammar(regex='a+'), [0]); c.close(); print('torch' in sys.modules, s.complete)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    assert done.stdout.split() == ["False", "False"], done.stderr
