"""What a call over gRPC hands on: who goes to which version, how long it may wait, and what became of its turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

from openautoglm.protos import text_pb2 as pb
from openautoglm.serve.faults import Unavailable
from openautoglm.serve.guard.rights import NOBODY
from openautoglm.serve.rpc.serving import Call, Serving
from openautoglm.serve.rpc.text import TextService
from openautoglm.serve.service.values import Caller, Delta, Usage
from openautoglm.serve.wire.limits import Limits


class Speaking:
    """An answer of one piece; its turn could not be kept where there is a fault."""

    def __init__(self, unkept: Unavailable | None) -> None:
        self.unkept, self.usage, self.tool, self.cancelled = unkept, Usage(), None, False

    async def stream(self) -> AsyncGenerator[Delta, None]:
        """See `Answering`."""
        yield Delta(0, "Aye.", (), "stop")

    def cancel(self) -> None:
        """See `Answering`."""
        self.cancelled = True


class Choosing:
    """Models that write down how they are asked for."""

    def __init__(self, answering: Speaking) -> None:
        self.answering, self.used, self.callers = answering, list[dict[str, Any]](), list[Caller]()

    @asynccontextmanager
    async def use(self, name: str | None, **more: Any) -> AsyncIterator[Any]:
        """See `Models`."""
        self.used.append({"name": name, **more})
        await asyncio.sleep(0.002)

        async def open_(ask: Any, caller: Caller) -> Speaking:
            self.callers.append(caller)
            return self.answering

        yield SimpleNamespace(open=open_, fingerprint="f")


def ask(method: str, request: Any, *, left_s: float | None = None, unkept: Unavailable | None = None
        ) -> tuple[Choosing, list[Any]]:
    models = Choosing(Speaking(unkept))
    serving = SimpleNamespace(models=models, limits=Limits(timeout_s=90), settings=SimpleNamespace(log_prompts=False))
    call = Call(Caller("ann"), NOBODY, lambda: left_s)

    async def read() -> list[Any]:
        return [reply async for reply in getattr(TextService(cast(Serving, serving)), method)(request, call)]

    replies = asyncio.run(read())
    assert models.answering.cancelled
    return models, replies


def test_requests_that_belong_together_go_to_one_version() -> None:
    prompts = [pb.Prompt(text="x")]
    models, _ = ask("generate", pb.GenerateRequest(model="m", prompts=prompts))
    assert models.used == [{"name": "m", "key": "ann", "timeout_s": 90}]
    options = pb.Options(user="bob", timeout_s=5)
    models, _ = ask("generate", pb.GenerateRequest(model="m", prompts=prompts, options=options))
    assert models.used == [{"name": "m", "key": "ann\0u\0bob", "timeout_s": 5}]
    messages = [pb.Message(role="user", content="x")]
    models, _ = ask("chat", pb.ChatRequest(model="m", messages=messages, conversation="c", options=options), left_s=3)
    assert models.used == [{"name": "m", "key": "ann\0c\0c", "timeout_s": 3}]


def test_the_time_until_the_model_is_there_counts() -> None:
    models, _ = ask("generate", pb.GenerateRequest(model="m", prompts=[pb.Prompt(text="x")]))
    assert models.callers[0].waited_s > 0


def test_a_turn_that_was_not_kept_is_told() -> None:
    request = pb.ChatRequest(model="m", messages=[pb.Message(role="user", content="x")], conversation="c")
    *pieces, last = ask("chat", request)[1]
    assert ([piece.text for piece in pieces], last.unkept) == (["Aye."], "")
    fault = Unavailable("the database does not answer", remedy="try again")
    *pieces, last = ask("chat", request, unkept=fault)[1]
    assert [piece.text for piece in pieces] == ["Aye."]
    assert last.unkept == fault.public
    assert last.fingerprint == "f"
