"""`autoglm.v1.TextService`: texts, chats and embeddings, streamed."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

from openautoglm.core import log
from openautoglm.protos import text_pb2 as pb
from openautoglm.serve.faults import BadRequest, as_fault
from openautoglm.serve.rpc.fields import messages_of, options_of, plain, prompt_of, tools_of
from openautoglm.serve.rpc.serving import Call, Method, Serving, methods_of
from openautoglm.serve.service.answering import Answering
from openautoglm.serve.service.models import sticky_key
from openautoglm.serve.service.service import Service
from openautoglm.serve.service.values import Delta, TokenLogprob, Usage
from openautoglm.serve.wire.asks import ChatAsk, CompletionAsk, DetokenizeAsk, EmbeddingAsk, TokenizeAsk
from openautoglm.serve.wire.validate import read_ask

_log = log.get(__name__)
_SHOWN = 4000


class TextService:
    """The methods of the service."""

    def __init__(self, serving: Serving) -> None:
        self._serving, self._limits = serving, serving.limits

    def methods(self) -> Sequence[Method]:
        """All of them."""
        answers = {"Generate": self.generate, "Chat": self.chat, "Embed": self.embed, "Tokenize": self.tokenize,
                   "Detokenize": self.detokenize, "Models": self.models}
        return methods_of(pb.DESCRIPTOR.services_by_name["TextService"], answers,
                          classes=lambda message: getattr(pb, message.name))

    async def generate(self, request: Any, call: Call) -> AsyncGenerator[Any, None]:
        """Yield what is added to the answers to prompts."""
        prompts = [prompt_of(prompt, f"prompt.{number}", self._limits)
                   for number, prompt in enumerate(request.prompts)]
        fields = {**options_of(request.options, self._limits), **plain(request), "prompt": prompts, "stream": True}
        ask = read_ask(CompletionAsk, {"model": "", **fields}, self._limits)
        async with aclosing(self._replies(ask, call)) as replies:
            async for reply in replies:
                yield reply

    async def chat(self, request: Any, call: Call) -> AsyncGenerator[Any, None]:
        """Yield what is added to a conversation."""
        fields = {**options_of(request.options, self._limits), **plain(request, "tool_mode", "tool_name"),
                  **tools_of(request, self._limits), "messages": messages_of(request.messages), "stream": True}
        ask = read_ask(ChatAsk, {"model": "", **fields}, self._limits)
        async with aclosing(self._replies(ask, call)) as replies:
            async for reply in replies:
                yield reply

    async def _replies(self, ask: CompletionAsk | ChatAsk, call: Call) -> AsyncGenerator[Any, None]:
        show(self._serving, ask, call)
        async with opened(self._serving, ask, call) as (service, answering):
            async with aclosing(answering.stream()) as deltas:
                async for delta in deltas:
                    if delta.text or delta.finish or delta.logprobs:
                        yield _reply(delta)
            unkept = "" if answering.unkept is None else as_fault(answering.unkept, call.caller.request_id).public
            yield pb.Reply(usage=usage_of(answering.usage), tool=answering.tool or "", fingerprint=service.fingerprint,
                           unkept=unkept)

    async def embed(self, request: Any, call: Call) -> AsyncGenerator[Any, None]:
        """Yield the vectors of texts."""
        inputs = [prompt_of(item, f"input.{number}", self._limits) for number, item in enumerate(request.inputs)]
        ask = read_ask(EmbeddingAsk, {"model": "", **plain(request), "input": inputs}, self._limits)
        async with self._serving.models.use(ask.model) as service:
            vectors, usage = await service.embed(ask, call.caller)
        yield pb.EmbedReply(embeddings=[pb.Embedding(values=row) for row in vectors.tolist()], usage=usage_of(usage))

    async def tokenize(self, request: Any, call: Call) -> AsyncGenerator[Any, None]:
        """Yield the ids of a text, a record or a conversation."""
        fields = plain(request, "texts")
        if request.HasField("prompt"):
            fields["prompt"] = prompt_of(request.prompt, "prompt", self._limits)
            if isinstance(fields["prompt"], list):
                raise BadRequest("are ids already", where="prompt", remedy="give text or record")
        if request.messages:
            fields["messages"] = messages_of(request.messages)
        ask = read_ask(TokenizeAsk, fields, self._limits)
        call.caller.admit(0)
        async with self._serving.models.use(ask.model) as service:
            ids = await service.tokenize(ask)
            texts = [service.token_text(token) for token in ids] if request.texts else []
            yield pb.TokenizeReply(tokens=ids, texts=texts, max_tokens=service.backend.facts.max_tokens)

    async def detokenize(self, request: Any, call: Call) -> AsyncGenerator[Any, None]:
        """Yield the text of ids."""
        ask = read_ask(DetokenizeAsk, {"tokens": [], **plain(request)}, self._limits)
        call.caller.admit(0)
        async with self._serving.models.use(ask.model) as service:
            yield pb.DetokenizeReply(text=await service.detokenize(ask))

    async def models(self, request: Any, call: Call) -> AsyncGenerator[Any, None]:
        """Yield which models there are."""
        listed = await self._serving.models.listed()
        yield pb.ModelsReply(models=[pb.Model(name=model.name, created=model.created, max_tokens=model.max_tokens,
                                              fingerprint=model.fingerprint) for model in listed])


def show(serving: Serving, ask: Any, call: Call) -> None:
    """Write what is asked to the log, where the server shall."""
    if serving.settings.log_prompts:
        _log.info("asked: %s", ask.model_dump_json(exclude_none=True, warnings=False)[:_SHOWN],
                  extra={"request_id": call.caller.request_id})


@asynccontextmanager
async def opened(serving: Serving, ask: CompletionAsk | ChatAsk, call: Call
                 ) -> AsyncIterator[tuple[Service, Answering]]:
    """Choose the model, let it be loaded, and begin to answer; what is left unread at the end is given up.

    The time until the model is there counts, as the client's deadline does.
    """
    began, ask = time.monotonic(), call.in_time(ask, serving.limits)
    within_s, sticky = ask.timeout_s or serving.limits.timeout_s, sticky_key(ask, call.caller.name)
    async with serving.models.use(ask.model, key=sticky, timeout_s=within_s) as service:
        answering = await service.open(ask, replace(call.caller, waited_s=time.monotonic() - began))
        try:
            yield service, answering
        finally:
            answering.cancel()


def usage_of(usage: Usage) -> Any:
    """Counts of tokens as a message."""
    return pb.Usage(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens,
                    dropped_messages=usage.dropped_messages, dropped_tokens=usage.dropped_tokens)


def _reply(delta: Delta) -> Any:
    if not delta.logprobs:
        return pb.Reply(choice=delta.choice, text=delta.text, finish_reason=delta.finish or "")
    return pb.Reply(choice=delta.choice, text=delta.text, finish_reason=delta.finish or "",
                    logprobs=[_logprob(token) for token in delta.logprobs])


def _logprob(token: TokenLogprob) -> Any:
    top = [pb.TopLogprob(text=text, logprob=logprob, raw=raw) for text, logprob, raw in token.top]
    return pb.TokenLogprob(text=token.text, logprob=token.logprob, raw=token.raw, top=top)
