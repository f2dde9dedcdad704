"""Mean hidden states: those of transformers, on every target, beside requests that are under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_program import FakeProgram

from openautoglm.core.errors import GenerationError, GraphError
from openautoglm.engine.async_engine import AsyncEngine
from openautoglm.engine.embed import Embedder
from openautoglm.engine.engine import Engine
from openautoglm.engine.open import ProgramSettings, open_engine
from openautoglm.engine.pages import PagePool
from openautoglm.engine.request import Decoding, Request
from openautoglm.engine.settings import EngineSettings
from openautoglm.graph.recipe import Quantisation
from openautoglm.models import hf
from openautoglm.models.spec import GlmSpec
from openautoglm.runtime.load import load_hidden, load_program
from openautoglm.runtime.native import native_module, why_not

needs_native = pytest.mark.skipif(native_module() is None, reason=f"the native runtime is not built: {why_not()}")
TARGETS = ["torch:cpu", pytest.param("native", marks=needs_native)]


@pytest.fixture(scope="module", params=["glm", "glm4", "tied"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads as wide as the native kernels need."""
    family = "glm" if request.param == "tied" else request.param
    spec = GlmSpec(family=family, vocab_size=40, max_positions=160, eos_ids=(3,), hidden_size=32, layers=2, heads=4,
                   kv_heads=2, head_dim=16, ffn_size=48, tied=request.param == "tied")
    made: Path = tmp_path_factory.mktemp("embeddings")
    hf.build(spec, seed=3, init_std=0.5).eval().save_pretrained(made)
    return made


def texts(count: int, longest: int, seed: int = 1) -> list[list[int]]:
    dice = np.random.default_rng(seed)
    return [dice.integers(4, 40, dice.integers(1, longest)).tolist() for _ in range(count)]


def means(folder: Path, given: list[list[int]]) -> Any:
    model = hf.load(folder)[0].eval()
    with torch.inference_mode():
        return np.stack([model.model(torch.tensor([ids])).last_hidden_state[0].mean(0).numpy() for ids in given])


def opened(folder: Path, target: str, **program: Any) -> Engine:
    return open_engine(folder, ProgramSettings(target=target, cache="fp32", cache_tokens=480, **program),
                       EngineSettings(max_batch=4))


def embed(engine: Engine, given: list[list[int]]) -> Any:
    assert engine.embedder is not None
    made = engine.embedder.submit(given)
    while not made.done:
        engine.turn()
    return made.result()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("max_rows", [512, 24])
def test_means_are_those_of_transformers(folder: Path, target: str, max_rows: int) -> None:
    given = [*texts(12, 60), list(range(4, 40)) * 4]
    engine = opened(folder, target, max_rows=max_rows, max_wanted=8)
    found = embed(engine, given)
    assert found.dtype == np.float32
    assert np.abs(found - means(folder, given)).max() < 2e-4
    assert engine.stats.pages_held == 0
    assert engine.idle


@pytest.mark.parametrize("target", TARGETS)
def test_requests_under_way_are_not_disturbed(folder: Path, target: str) -> None:
    prompts, long = texts(4, 20, seed=2), Decoding(max_new_tokens=24, ignore_stop=True)
    expected = opened(folder, target).generate(prompts, long)
    engine = opened(folder, target, max_rows=16, max_wanted=8)
    tickets = [engine.submit(Request(prompt, long)) for prompt in prompts]
    engine.step()
    given = texts(6, 40)
    assert np.abs(embed(engine, given) - means(folder, given)).max() < 2e-4
    assert not all(ticket.done for ticket in tickets)
    while not engine.idle:
        engine.turn()
    assert [ticket.result()[0].ids for ticket in tickets] == [some[0].ids for some in expected]


@needs_native
@pytest.mark.parametrize("format", ["int8", "int4"])
def test_quantised_states_give_the_quantised_logits(folder: Path, format: Any) -> None:
    recipe = Quantisation(format=format, group=32, head="bf16")
    program: Any = load_program(folder, "native", quantise=recipe, dtype="bf16", pages=8)
    hidden: Any = load_hidden(folder, program)
    assert hidden.facts.weight_bytes == 0
    from openautoglm.runtime.layout import Part, lay_out

    ids = np.asarray(texts(1, 30, seed=5)[0], np.int32)
    layout = lay_out([Part(len(ids), 0, range(2))], page_size=16, pages=8)
    wanted = np.arange(len(ids), dtype=np.int32)
    logits = program.step(ids, layout.positions, layout, wanted)
    states = hidden.step(ids, layout.positions, layout, wanted)
    model = hf.load(folder)[0]
    head = model.get_output_embeddings().weight.detach().to(torch.bfloat16).float().numpy()
    assert np.abs(states @ head.T - logits).max() < 0.05 * np.abs(logits).max()


@pytest.mark.parametrize("target", TARGETS)
def test_weights_are_shared(folder: Path, target: str) -> None:
    program: Any = load_program(folder, target, pages=8, max_rows=64)
    hidden: Any = load_hidden(folder, program, max_rows=16)
    assert (hidden.facts.weight_bytes, hidden.facts.cache_bytes) == (0, 0)
    assert (hidden.plan.max_rows, hidden.plan.max_wanted) == (16, 16)
    assert 0 < hidden.facts.activation_bytes < program.facts.activation_bytes


@needs_native
def test_streamed_weights_are_not(folder: Path) -> None:
    from openautoglm.core.errors import ResourceError
    from openautoglm.runtime.native_load import pack_checkpoint

    pack_checkpoint(folder, dtype="fp32")
    program = load_program(folder, "native", load="stream", pages=8)
    with pytest.raises(ResourceError, match="streamed"):
        load_hidden(folder, program)
    mapped = load_hidden(folder, load_program(folder, "native", load="map", pages=8))
    assert mapped.facts.weight_bytes == 0


def test_a_target_that_shares_nothing_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from openautoglm.runtime import torch_program

    program = load_program(folder, "torch:cpu", pages=8)
    monkeypatch.delattr(torch_program, "share")
    with pytest.raises(GraphError, match="share no weights"):
        load_hidden(folder, program)


class FakeHidden(FakeProgram):
    """Its states are a row's id and position."""

    def step(self, ids: Any, positions: Any, layout: Any, wanted: Any) -> Any:
        if self._before is not None:
            self._before(len(self.batches))
        self.batches.append(layout.counts.tolist())
        return np.stack([ids[wanted], positions[wanted]], 1).astype(np.float32)


def fake(pages: int = 8, **options: Any) -> tuple[Embedder, PagePool, FakeHidden]:
    program = FakeHidden(pages=pages, page_size=4, max_rows=10, **options)
    pool = PagePool(pages, 4)
    return Embedder(lambda: program, pool), pool, program


def test_texts_share_steps_and_long_ones_are_cut() -> None:
    embedder, pool, program = fake()
    made = embedder.submit([[1, 2, 3], list(range(4, 17)), [9]])
    while not made.done:
        assert embedder.step()
    assert made.result().tolist() == [[2, 1], [10, 6], [9, 0]]
    assert program.batches == [[3, 7], [6, 1]]
    assert pool.held == 0
    assert not embedder.step()


def test_pages_that_others_need_are_left() -> None:
    embedder, pool, _ = fake(pages=4)
    held = pool.take(2)
    made = embedder.submit([[1] * 8])
    assert not embedder.step(spare=1)
    assert embedder.step(spare=0)
    assert made.done
    assert embedder.submit([[1] * 12])
    assert not embedder.step()
    pool.release(held)
    assert embedder.step()


def test_cancelled_texts_give_their_pages_back() -> None:
    embedder, pool, _ = fake()
    told: list[Any] = []
    made = embedder.submit([list(range(1, 20)), [5]], told.append)
    other = embedder.submit([[7, 7]], told.append)
    embedder.step()
    embedder.cancel(made)
    while not other.done:
        embedder.step()
    assert told == [other]
    assert (pool.held, embedder.idle) == (0, True)


def test_a_step_that_fails_takes_its_texts_only() -> None:
    def before(step: int) -> None:
        if step == 0 and failures:
            raise failures.pop()

    failures = [MemoryError("no scratch")]
    embedder, pool, _ = fake(before=before)
    first = embedder.submit([[1, 2]])
    embedder.step()
    with pytest.raises(GenerationError, match="no scratch"):
        first.result()
    second = embedder.submit([[1, 3]])
    embedder.step()
    assert second.result().tolist() == [[2, 0.5]]
    assert pool.held == 0


@pytest.mark.parametrize(("given", "message"), [([], "no text"), ([[]], "0 tokens"), ([[1] * 40], "40 tokens"),
                                                ([[50]], "vocabulary"), ([[1], [-1]], "vocabulary")], ids=str)
def test_what_cannot_be_read_is_refused(given: Any, message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        fake()[0].submit(given)


def with_hidden(make: Callable[[], Any]) -> AsyncEngine:
    return AsyncEngine(Engine(FakeProgram(pages=16), hidden=make))


def test_an_engine_in_a_thread_embeds() -> None:
    async def work() -> None:
        async with with_hidden(lambda: FakeHidden(pages=16, max_rows=10)) as engine:
            many = await asyncio.gather(*(engine.embed([[number, number]]) for number in range(1, 9)))
            assert [found.tolist() for found in many] == [[[number, 0.5]] for number in range(1, 9)]
            with pytest.raises(GenerationError, match="vocabulary"):
                await engine.embed([[999]])
        with pytest.raises(GenerationError, match="does not run"):
            await engine.embed([[1]])
        async with AsyncEngine(Engine(FakeProgram())) as bare:
            with pytest.raises(GenerationError, match="no hidden states"):
                await bare.embed([[1]])

    asyncio.run(asyncio.wait_for(work(), 60))


def test_leaving_and_closing_end_embeddings() -> None:
    import threading

    gate = threading.Semaphore(0)

    async def work() -> None:
        engine = with_hidden(lambda: FakeHidden(pages=16, max_rows=10, before=lambda step: gate.acquire() and None))
        engine.start()
        task = asyncio.create_task(engine.embed([[1] * 30]))
        gate.release()
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        other = asyncio.create_task(engine.embed([[2] * 30]))
        await asyncio.sleep(0.01)
        engine._commands.put(None)  # as close does, before anything can be finished
        gate.release(50)
        await asyncio.to_thread(engine.close)
        with pytest.raises(GenerationError, match="closed"):
            await other

    asyncio.run(asyncio.wait_for(work(), 60))
