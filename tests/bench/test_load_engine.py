"""A load straight on the engine: a small bundle, and an engine whose queue can be foreseen."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from openautoglm.bench.client import FailedError, Mark, Pulse
from openautoglm.bench.direct import EngineClient, QueueClock, encoder
from openautoglm.bench.plan import Ask
from openautoglm.bench.prompts import Prompt
from openautoglm.bench.run import run_load
from openautoglm.bench.settings import Arrivals, Judgement, LoadSettings, Prompts
from openautoglm.bench.targets import EngineTarget
from openautoglm.bench.words import word_vocabulary
from openautoglm.core.values import Turn
from openautoglm.engine.engine import Engine
from openautoglm.engine.open import ProgramSettings, open_engine
from openautoglm.engine.settings import EngineSettings
from openautoglm.models.bundle import Bundle
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer

PROGRAM = ProgramSettings(target="torch:cpu", cache_tokens=2048, max_rows=128, max_wanted=16)
QUICK = LoadSettings(arrivals=Arrivals(max_concurrency=4, num_prompts=24), prompts=Prompts(input_len=12, output_len=5),
                     judge=Judgement(resamples=100, sample_s=0.02))


def test_a_bundle_is_measured(bundle: Bundle) -> None:
    prompts = Prompts(input_len=12, output_len=48)  # long enough for many looks while answers are under way
    settings = QUICK.model_copy(update={"prompts": prompts, "judge": Judgement(resamples=100, sample_s=0.001)})
    target = EngineTarget(bundle.path, prompts, PROGRAM, EngineSettings(max_batch=4), label="here")
    result = run_load(settings, target)
    assert (result["completed"], result["failed"], result["loop"]) == (24, 0, "closed")
    frame = bundle.template.frame(bundle.tokenizer)  # a server puts it around its prompts, too
    form = len(frame.before) + len(frame.after)
    assert (result["total_input_tokens"], result["total_output_tokens"]) == (24 * (12 + form), 24 * 48)
    assert result["max_concurrent_requests"] == 4
    assert 0 < result["mean_ttft_ms"] < result["mean_e2el_ms"]
    assert result["mean_queue_time_ms"] >= 0
    assert 0 < result["server"]["kv_use_max"] <= 1
    assert result["server"]["tokens_per_step"] > 1
    assert result["engine"]["max_batch"] == 4
    again = run_load(settings, target)  # the engine is loaded once, and serves another client
    assert again["completed"] == 24


def test_a_shared_beginning_is_found_in_the_cache(bundle: Bundle) -> None:
    rates = []
    for share in (0.0, 0.8):
        prompts = Prompts(input_len=100, output_len=2, shared_prefix=share)
        settings = QUICK.model_copy(update={"prompts": prompts})
        result = run_load(settings, EngineTarget(bundle.path, prompts, PROGRAM, EngineSettings()))
        rates.append(result["server"]["prefix_hit_rate"])
    assert rates[0] < 0.05
    assert 0.6 < rates[1] <= 0.8


def test_a_data_set_goes_through_the_template_of_the_bundle(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"source": "tabo rega"}\n')
    prompts = Prompts(dataset=(str(path),), output_len=3, ignore_eos=True)
    settings = QUICK.model_copy(update={"prompts": prompts})
    result = run_load(settings, EngineTarget(bundle.path, prompts, PROGRAM, EngineSettings()))
    tokens = len(bundle.template.prompt("tabo rega", (), bundle.tokenizer))
    assert result["total_input_tokens"] == 24 * tokens
    assert any("they repeat" in warning for warning in result["warnings"])


def test_turns_become_a_conversation(tokenizer: Tokenizer) -> None:
    turns = (Turn("user", "tabo"), Turn("assistant", "redi"), Turn("user", "miso"))
    encode = encoder(tokenizer, Template())
    assert encode(Prompt("miso", turns=turns)) == Template().prompt("miso", turns[:-1], tokenizer)
    assert encode(Prompt("miso")) == Template().prompt("miso", (), tokenizer)
    assert encoder(tokenizer, None)(Prompt("miso")) == tokenizer.encode("miso")
    with pytest.raises(FailedError, match="no tokenizer"):
        encoder(None, None)(Prompt("miso"))


class Stepping:
    """An engine that admits one request a step, its clock moved by a second each step."""

    def __init__(self) -> None:
        self.time = 0.0
        self.tickets: list[Any] = []

    def now(self) -> float:
        return self.time

    def submit(self, request: Any, listener: Any = None) -> Any:
        ticket = SimpleNamespace(request=request, done=False, bounds=SimpleNamespace(arrival=self.time),
                                 sequences=[SimpleNamespace(started=False)])
        self.tickets.append(ticket)
        return ticket

    def step(self) -> bool:
        for ticket in self.tickets:
            if not ticket.sequences[0].started:
                ticket.sequences[0].started = True
                break
        self.time += 1.0
        return True


def test_time_in_the_queue_ends_with_the_step_that_admits() -> None:
    clock = QueueClock(cast(Engine, Stepping()))
    for name in "abc":
        clock.submit(cast(Any, name))
    for _ in range(3):
        clock.step()
    assert clock.queue_s == {"a": 0.0, "b": 1.0, "c": 2.0}


def test_what_the_engine_refuses_has_a_kind(bundle: Bundle) -> None:
    async def work() -> list[str]:
        engine = open_engine(bundle.path, PROGRAM, EngineSettings(max_batch=1, max_waiting=1))
        client = EngineClient(engine, encoder(None, None), Prompts(), Pulse(), model="small")
        await client.open()
        long = Ask(0, 0.0, Prompt(ids=(5,) * 4), 100, 0)
        marks = [Mark(long, client.prepare(long)) for _ in range(6)]
        marks.append(Mark(long, client.prepare(Ask(0, 0.0, Prompt(ids=(5,) * 500), 4, 0))))

        async def one(mark: Mark) -> str:
            try:
                await client.send(mark)
            except FailedError as error:
                return error.kind
            return ""

        kinds = await asyncio.gather(*(one(mark) for mark in marks))
        await client.close()
        return list(kinds)

    kinds = asyncio.run(asyncio.wait_for(work(), 60))
    assert kinds[-1] == "engine"
    assert "refused" in kinds
    assert "" in kinds


def test_the_engine_is_asked_what_a_server_would_be(tokenizer: Tokenizer, bundle: Bundle, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).symlink_to(bundle.path / name)
    plain = EngineTarget(tmp_path, QUICK.prompts, PROGRAM, EngineSettings())
    assert plain.vocabulary().words == word_vocabulary(tokenizer).words
    client = cast(EngineClient, plain.client(Pulse(), lambda: 0.0))
    ask = Ask(0, 0.0, Prompt("miso", tuple(tokenizer.encode("miso"))), 4, 0)
    assert client.prepare(ask).prompt == tuple(Template(kind="glm4").prompt("miso", (), tokenizer))
