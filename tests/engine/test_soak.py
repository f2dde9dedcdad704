"""A soak of a second passes, and what it is there to find makes it fail."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from fake_program import FakeProgram, fake_logits
from grammar_tools import tokenizer

from openautoglm.engine.grammar import GrammarCompiler
from openautoglm.engine.grammar_check import GrammarLimits
from openautoglm.engine.pages import PagePool

pytest.importorskip("llguidance", reason="the extra `serve` is not installed")
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import soak as module

    return module


@pytest.fixture(scope="module")
def compiler() -> Iterator[GrammarCompiler]:
    with GrammarCompiler(tokenizer().pieces, GrammarLimits(time_s=0.2, cache_bytes=1 << 20)) as made:
        yield made


def logits(history: Sequence[int]) -> Any:
    return fake_logits(history, tokenizer().vocab_size, order=2)


class Clock:
    """Half a millisecond passes with every look, so that a soak is the same on every machine."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 0.0005
        return self.now


def run(soak: ModuleType, compiler: GrammarCompiler, seconds: float, kind: type[FakeProgram] = FakeProgram) -> Any:
    program = kind(vocab=tokenizer().vocab_size, positions=192, pages=36, page_size=8, logits=logits)
    dice = random.Random(3)
    traffic = soak.Traffic(program.plan, compiler, dice, stop_ids=[3])
    made = soak.Soak(program, traffic, dice, fail=0.005, clock=Clock())
    made.run(seconds, 3)
    return made


def test_a_short_soak_passes(soak: ModuleType, compiler: GrammarCompiler, capsys: pytest.CaptureFixture[str]) -> None:
    made = run(soak, compiler, 1.5)
    assert soak.report(made, growth_mib=64) == 0, made.violations
    assert capsys.readouterr().out.endswith("passed\n")
    assert min(made.counts[name] for name in ("length", "stop", "cancelled", "error", "refused", "probes",
                                              "failed_steps", "preemptions")) > 0
    ended = sum(made.counts[name] for name in ("length", "stop", "cancelled", "deadline", "error", "refused"))
    assert ended == made.counts["requests"]


def test_a_lost_page_is_found(soak: ModuleType, compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch,
                              capsys: pytest.CaptureFixture[str]) -> None:
    release = PagePool.release
    monkeypatch.setattr(PagePool, "release", lambda pool, pages: release(pool, pages[:-1] if len(pages) > 9 else pages))
    made = run(soak, compiler, 0.5)
    assert soak.report(made, growth_mib=64) == 1
    assert "pages" in capsys.readouterr().out
    assert any("an idle engine holds" in sentence or "stuck" in sentence for sentence in made.violations)


def test_a_text_that_depends_on_its_company_is_found(soak: ModuleType, compiler: GrammarCompiler) -> None:
    class Sociable(FakeProgram):
        def step(self, ids: Any, positions: Any, layout: Any, wanted: Any) -> Any:
            made = super().step(ids, positions, layout, wanted)
            return np.roll(made, 1, axis=1) if layout.sequences > 1 else made

    made = run(soak, compiler, 1.0, Sociable)
    assert any("another text than alone" in sentence for sentence in made.violations)


def test_growth_is_found(soak: ModuleType, compiler: GrammarCompiler, capsys: pytest.CaptureFixture[str]) -> None:
    made = run(soak, compiler, 0.1)
    made.memory = [(float(second), 1_000_000 * second) for second in range(100)]
    assert soak.report(made, growth_mib=64) == 0
    assert soak.report(made, growth_mib=10) == 1
    assert "VIOLATION: memory grew by 46.7 MiB" in capsys.readouterr().out
    rate, grown = soak.slope(made.memory)
    assert (round(rate), round(grown)) == (1_000_000, 49_000_000)


@pytest.mark.slow
def test_the_command_soaks_a_random_model(soak: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.main(["--minutes", "0.02", "--target", "torch:cpu", "--growth-mib", "256"]) == 0
    assert "torch:cpu, 4 rounds" in capsys.readouterr().out
