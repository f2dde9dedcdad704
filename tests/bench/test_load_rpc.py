"""The gRPC client against a scripted server on loopback: what is sent, what is read, how failures are named."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from openautoglm.bench.client import FailedError, Mark, Pulse
from openautoglm.bench.plan import Ask
from openautoglm.bench.prompts import Prompt
from openautoglm.bench.rest import Server
from openautoglm.bench.rpc import RpcClient
from openautoglm.bench.run import run_load
from openautoglm.bench.settings import Arrivals, Judgement, LoadSettings, Prompts
from openautoglm.bench.targets import RpcTarget
from openautoglm.cli import bench
from openautoglm.core.errors import LoadError
from openautoglm.core.values import Turn
from openautoglm.protos import text_pb2 as pb

ASK = Ask(0, 0.0, Prompt("hello"), 5, 11)


@dataclass
class Scripted:
    """A server that answers every request with these delays, and keeps what it was asked and when it wrote.

    Attributes:
        ends: ``well``, ``cut``, or the name of a status code.
    """

    gaps_s: Sequence[float] = (0.0,) * 5
    ends: str = "well"
    models: Sequence[str] = ("scripted",)
    requests: list[Any] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    token_s: list[float] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)
    left: int = 0

    async def generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.requests.append(request)
        self.peers.append(context.peer())
        self.metadata.append(dict(context.invocation_metadata()))
        try:
            for gap_s in self.gaps_s:
                await asyncio.sleep(gap_s)
                self.token_s.append(time.monotonic())
                yield pb.Reply(text=" word")
            if self.ends not in ("well", "cut"):
                await context.abort(grpc.StatusCode[self.ends], "not now")
            yield pb.Reply(finish_reason="length")
            if self.ends == "well":
                yield pb.Reply(usage=pb.Usage(prompt_tokens=7, completion_tokens=len(self.gaps_s)))
        except asyncio.CancelledError:
            self.left += 1
            raise

    async def listed(self, request: Any, context: Any) -> Any:
        return pb.ModelsReply(models=[pb.Model(name=name) for name in self.models])

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = grpc.aio.server()
        streams = {name: grpc.unary_stream_rpc_method_handler(
            self.generate, kind.FromString, pb.Reply.SerializeToString)
            for name, kind in (("Generate", pb.GenerateRequest), ("Chat", pb.ChatRequest))}
        models = grpc.unary_unary_rpc_method_handler(self.listed, pb.ModelsRequest.FromString,
                                                     pb.ModelsReply.SerializeToString)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(
            "autoglm.v1.TextService", {**streams, "Models": models}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"grpc://127.0.0.1:{port}"
        finally:
            await server.stop(0)


def run(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(work(), timeout=60))


async def asked(client: RpcClient, ask: Ask = ASK) -> Mark:
    """One request, read to its end; a failure is noted as the driver does."""
    mark = Mark(ask, client.prepare(ask))
    try:
        await client.send(mark)
        for _ in client.digest(mark):
            await asyncio.sleep(0)
    except FailedError as error:
        mark.error, mark.detail = error.kind, error.detail
    return mark


def one(script: Scripted, ask: Ask = ASK, prompts: Prompts | None = None, **options: Any) -> Mark:
    async def work() -> Mark:
        async with script.serving() as url:
            client = RpcClient(Server(base_url=url, **{"backend": "grpc", **options}), prompts or Prompts(), Pulse())
            await client.open()
            mark = await asked(client, ask)
            await client.close()
            return mark

    made: Mark = run(work)
    return made


def test_a_text_is_asked_for_and_counted() -> None:
    script = Scripted()
    mark = one(script, headers={"Authorization": "Bearer k"})
    assert (mark.error, mark.prompt_tokens, mark.output_tokens, len(mark.token_s)) == ("", 7, 5, 5)
    assert script.requests == [pb.GenerateRequest(model="scripted", prompts=[pb.Prompt(text="hello")],
                                                  options=pb.Options(max_tokens=5, temperature=0, ignore_eos=True))]
    assert script.metadata[0]["authorization"] == "Bearer k"


def test_a_chat_sends_turns() -> None:
    script = Scripted()
    turns = (Turn("user", "hello"), Turn("observation", "42"))
    mark = one(script, Ask(0, 0.0, Prompt("hello", turns=turns), 5, 11), Prompts(temperature=0.5, ignore_eos=False),
               backend="grpc-chat", model="m")
    assert not mark.error
    assert script.requests == [pb.ChatRequest(
        model="m", messages=[pb.Message(role="user", content="hello"), pb.Message(role="tool", content="42")],
        options=pb.Options(max_tokens=5, temperature=0.5, top_p=1.0, seed=11))]


@pytest.mark.parametrize(("ends", "kind"), [("cut", "cut"), ("RESOURCE_EXHAUSTED", "grpc_resource_exhausted"),
                                            ("UNAVAILABLE", "grpc_unavailable")], ids=["cut", "full", "gone"])
def test_failures_have_kinds(ends: str, kind: str) -> None:
    mark = one(Scripted(ends=ends))
    assert mark.error == kind
    assert ("not now" in mark.detail) == (ends != "cut")


def test_times_are_those_of_the_server() -> None:
    script = Scripted(gaps_s=(0.2, 0.05, 0.1))
    mark = one(script)
    gaps = [after - before for before, after in zip(mark.token_s, mark.token_s[1:], strict=False)]
    wrote = [after - before for before, after in zip(script.token_s, script.token_s[1:], strict=False)]
    assert gaps == pytest.approx(wrote, abs=0.04)
    assert mark.token_s[0] - mark.sent_s >= 0.2


def test_cancelling_cancels_the_call() -> None:
    script = Scripted(gaps_s=(0.0, 60.0))

    async def work() -> None:
        async with script.serving() as url:
            client = RpcClient(Server(base_url=url, backend="grpc", model="m"), Prompts(), Pulse())
            await client.open()
            mark = Mark(ASK, client.prepare(ASK))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await client.send(mark)
            while not script.left:
                await asyncio.sleep(0.01)
            await client.close()
            assert len(mark.raw) == 1

    run(work)


def test_many_requests_have_more_than_one_connection() -> None:
    script = Scripted(gaps_s=(0.5,))

    async def work() -> tuple[set[str], set[str]]:
        async with script.serving() as url:
            client = RpcClient(Server(base_url=url, backend="grpc", model="m"), Prompts(), Pulse())
            await client.open()
            marks = await asyncio.gather(*(asked(client) for _ in range(70)))
            again = await asked(client)
            await client.close()
            return {mark.error for mark in (*marks, again)}, set(script.peers)

    errors, peers = run(work)
    assert errors == {""}
    assert len(peers) == 2


def test_wrong_addresses_and_options_are_told() -> None:
    for url in ("http://127.0.0.1:1", "127.0.0.1:8081", "grpc://"):
        with pytest.raises(LoadError, match="no address"):
            RpcClient(Server(base_url=url, backend="grpc"), Prompts(), Pulse())
    with pytest.raises(LoadError, match="further fields"):
        RpcClient(Server(base_url="grpc://h:1", backend="grpc", extra_body={"user": "x"}), Prompts(), Pulse())

    async def opened(url: str) -> None:
        client = RpcClient(Server(base_url=url, backend="grpc"), Prompts(), Pulse())
        try:
            await client.open()
        finally:
            await client.close()

    async def empty() -> None:
        async with Scripted(models=()).serving() as url:
            await opened(url)

    with pytest.raises(LoadError, match="does not answer"):
        run(lambda: opened("grpc://127.0.0.1:9"))
    with pytest.raises(LoadError, match="has no model"):
        run(empty)


def test_a_load_is_put_on_a_server() -> None:
    script = Scripted(gaps_s=(0.01,) * 4)

    async def work() -> dict[str, Any]:
        async with script.serving() as url:
            settings = LoadSettings(arrivals=Arrivals(request_rate=200, num_prompts=20), prompts=Prompts(output_len=4),
                                    judge=Judgement(num_warmups=0))
            target = RpcTarget(Server(base_url=url, backend="grpc"), Prompts(output_len=4))
            return await asyncio.to_thread(run_load, settings, target)

    result = run(work)
    assert (result["completed"], result["failed"], result["total_output_tokens"]) == (20, 0, 80)
    assert result["backend"] == "grpc"
    assert result["mean_ttft_ms"] >= 10


def test_the_verb_asks_over_grpc() -> None:
    done = CliRunner().invoke(bench.app, ["--backend", "grpc", "--port", "9"])
    assert isinstance(done.exception, LoadError)
    assert "--grpc-port" in str(done.exception)
