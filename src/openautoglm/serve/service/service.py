"""One model for many clients: asks come in, answers go out as text; the queue, deadlines and the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from openautoglm.core.settings import Settings
from openautoglm.serve.backend import Backend
from openautoglm.serve.faults import BadRequest, Fault, Unavailable, Unsupported
from openautoglm.serve.orders import Order
from openautoglm.serve.service.answer_text import TokenTexts, pieces_of
from openautoglm.serve.service.answering import Answering, Job
from openautoglm.serve.service.conversations import Conversations, Talk
from openautoglm.serve.service.decoding import Way, way_of
from openautoglm.serve.service.language import Language
from openautoglm.serve.service.prompts import Prompt, Prompts
from openautoglm.serve.service.queue import Queue, QueueSettings
from openautoglm.serve.service.values import Caller, Observer, Report, Usage
from openautoglm.serve.wire.asks import ChatAsk, CompletionAsk, DetokenizeAsk, EmbeddingAsk, GenerationAsk, TokenizeAsk
from openautoglm.serve.wire.limits import Limits
from openautoglm.serve.wire.validate import check_length

Made = TypeVar("Made")
_QUICK_CHARS = 20_000
"""Texts up to this length are turned into ids at once; longer ones in a thread, so that others are served meanwhile."""


class ServiceSettings(Settings):
    """Options of a service.

    Attributes:
        limits: on what is asked.
        queue: on what waits.
        max_tokens: bound on the tokens of an answer where neither client nor card names one.
    """

    limits: Limits = Limits()
    queue: QueueSettings = QueueSettings()
    max_tokens: int = Field(default=256, ge=1)


class Service:
    """Answers for one model.

    Args:
        name: of the model, as clients call it.
        language: how it speaks.
        backend: generates; started already.
        observers: are told what happens to requests.
        conversations: keeps conversations by name; without it there are none.
    """

    def __init__(self, name: str, language: Language, backend: Backend, settings: ServiceSettings | None = None, *,
                 observers: Sequence[Observer] = (), conversations: Conversations | None = None) -> None:
        self.name, self.language, self.backend = name, language, backend
        tokenizer = language.tokenizer
        self.settings = settings or ServiceSettings()
        self.limits = self.settings.limits
        self.created = int(time.time())
        self._card = {"max_new_tokens": self.settings.max_tokens, **language.recipe.get("decoding", {})}
        self._prompts = Prompts(language)
        self._pieces = pieces_of(tokenizer, max(backend.facts.vocab_size, tokenizer.vocab_size))
        self._texts = TokenTexts(tokenizer, self._pieces)
        self._opening = tuple(language.template.opening(tokenizer))
        self._opening_text = tokenizer.decode(self._opening)
        self._observers, self._conversations = tuple(observers), conversations
        self.queue = Queue(self.settings.queue, backend.facts.max_batch)

    @property
    def fingerprint(self) -> str:
        """Of the model: same fingerprint and seed, same answer."""
        return f"fp_{self.backend.facts.fingerprint[:16]}"

    async def open(self, ask: CompletionAsk | ChatAsk, caller: Caller | None = None) -> Answering:
        """Make an ask ready to be generated: nothing is asked of the engine before its `stream` is iterated.

        Raises:
            BadRequest, TooLong, Unsupported: it cannot be served as it is.
            Overloaded: the queue is full.
            Unavailable: the service is ending.
        """
        report = self._report("chat" if isinstance(ask, ChatAsk) else "completion", caller)
        try:
            return await self._open(ask, report)
        except Fault as fault:
            self._end(report, fault)
            raise

    async def _open(self, ask: CompletionAsk | ChatAsk, report: Report) -> Answering:
        way = way_of(ask, self._card)
        report.n, report.max_tokens = way.copies * way.decoding.n, way.max_tokens or 0
        opened = bool(way.grammar or ask.stop or way.decoding.logprobs is not None)
        opening = self._opening if opened else ()
        room = self._room(way) - len(opening)
        talk = await self._talk(ask, report.caller)
        prompts = await self._made(_size(ask), lambda: self._made_prompts(ask, room, talk))
        left = self._time_left(ask, report)
        jobs = [self._job(prompt, way, ask, opening if prompt.question is not None else (), left, report)
                for prompt in prompts]
        report.usage.prompt_tokens = sum(len(job.order.prompt) for job in jobs)
        report.usage.dropped_messages = sum(prompt.dropped_messages for prompt in prompts)
        report.usage.dropped_tokens = sum(prompt.dropped_tokens for prompt in prompts)
        self.queue.check(len(jobs), sum(job.tokens for job in jobs))
        report.settle = report.caller.admit(sum(job.tokens for job in jobs))
        stack = ExitStack()
        for job in jobs:
            job.place = stack.enter_context(self.queue.enter(job.tokens))
        drop = "" if opened else self._opening_text
        return Answering(self.backend, jobs, way, report, pieces=self._pieces, texts=self._texts, drop=drop,
                         stops=ask.stop or (), places=stack, observers=self._observers, talk=talk)

    async def embed(self, ask: EmbeddingAsk, caller: Caller | None = None) -> tuple[NDArray[np.float32], Usage]:
        """Return [inputs, hidden] fp32, and the tokens that were read.

        Raises:
            BadRequest, TooLong, Unsupported, Overloaded, Unavailable, EngineLost: as `open` and `Backend.embed`.
        """
        report = self._report("embedding", caller)
        fault: Fault | None = None
        try:
            texts = sum(len(item) for item in ask.input if isinstance(item, str))
            prompts = await self._made(texts, lambda: [self._prompts.of_text(item) for item in ask.input])
            for prompt in prompts:
                self._check_ids(prompt, "input")
                check_length(len(prompt), None, self.backend.facts.max_tokens + 1, self.limits, "input")
            report.usage.prompt_tokens = sum(map(len, prompts))
            self.queue.check(len(prompts), report.usage.prompt_tokens)
            report.settle = report.caller.admit(report.usage.prompt_tokens)
            with ExitStack() as places:
                for prompt in prompts:
                    places.enter_context(self.queue.enter(len(prompt)))
                vectors = await self.backend.embed(prompts)
            if ask.dimensions not in (None, vectors.shape[1]):
                raise Unsupported(f"the model's vectors have {vectors.shape[1]} dimensions, and are not shortened",
                                  where="dimensions", remedy="leave it out")
            return vectors, report.usage
        except Fault as error:
            fault = error
            raise
        finally:
            self._end(report, fault)

    async def tokenize(self, ask: TokenizeAsk) -> list[int]:
        """Return the ids of a text, a record or a conversation.

        Raises:
            BadRequest: it cannot become ids.
        """
        size = len(str(ask.prompt or "")) + sum(len(message.content or "") for message in ask.messages or ())
        return await self._made(size, lambda: self._prompts.of_tokenize(ask))

    async def detokenize(self, ask: DetokenizeAsk) -> str:
        """Return the text of ids.

        Raises:
            BadRequest: an id is not of this model.
        """
        self._check_ids(ask.tokens, "tokens")
        return await self._made(len(ask.tokens), lambda: self.language.tokenizer.decode(ask.tokens, skip_special=False))

    def token_text(self, token: int) -> str:
        """The text of one id."""
        return self._texts.text(token)[0]

    async def drain(self, timeout_s: float) -> bool:
        """Take nothing in any more, and wait for what is under way; whether it ended in time."""
        self.queue.close()
        try:
            async with asyncio.timeout(timeout_s):
                await self.queue.empty()
        except TimeoutError:
            return False
        return True

    async def _made(self, size: int, make: Callable[[], Made]) -> Made:
        return make() if size <= _QUICK_CHARS else await asyncio.to_thread(make)

    async def _talk(self, ask: CompletionAsk | ChatAsk, caller: Caller) -> Talk | None:
        if not isinstance(ask, ChatAsk) or ask.conversation is None:
            return None
        if self._conversations is None:
            raise Unsupported("this server keeps no conversations", where="conversation",
                              remedy="send all messages, or start the server with a registry")
        before = await self._conversations.recall(ask.conversation, caller.name)
        return Talk(self._conversations, ask.conversation, caller.name, before, ask.messages)

    def _made_prompts(self, ask: CompletionAsk | ChatAsk, room: int, talk: Talk | None) -> list[Prompt]:
        if isinstance(ask, CompletionAsk):
            return self._prompts.of_completion(ask, room)
        return [self._prompts.of_chat(ask, room, talk.before if talk is not None else ())]

    def _room(self, way: Way) -> int:
        """Tokens that a prompt may have where it may be cut: what the answer leaves."""
        positions = self.backend.facts.max_tokens
        wanted = way.max_tokens or min(way.decoding.max_new_tokens, positions // 2)
        return min(positions - wanted, self.limits.prompt_tokens)

    def _job(self, prompt: Prompt, way: Way, ask: GenerationAsk, opening: tuple[int, ...], timeout_s: float,
             report: Report) -> Job:
        ids = (*prompt.ids, *opening)
        where = "messages" if isinstance(ask, ChatAsk) else "prompt"
        self._check_ids(ids, where)
        longest = check_length(len(ids), way.max_tokens, self.backend.facts.max_tokens, self.limits, where)
        tokens = min(way.decoding.max_new_tokens, longest)
        decoding = way.decoding if tokens == way.decoding.max_new_tokens else way.decoding.model_copy(
            update={"max_new_tokens": tokens})
        order = Order(ids, decoding, 0, timeout_s, way.grammar, ask.stop or (), report.caller.salt,
                      report.caller.request_id)
        return Job(order, prompt.question, len(ids) + tokens * decoding.n)

    def _check_ids(self, ids: Sequence[int], where: str) -> None:
        known = len(self._pieces)
        foreign = next((token for token in ids if token >= known), None)
        if foreign is not None:
            raise BadRequest(f"holds the id {foreign}, the model has {known}", where=where,
                             remedy="send ids of this model, e.g. those of /tokenize")
        if not ids:
            raise BadRequest("is empty", where=where, remedy="give at least one id")

    def _time_left(self, ask: GenerationAsk, report: Report) -> float:
        allowed = ask.timeout_s or self.limits.timeout_s
        return max(0.001, allowed - report.caller.waited_s - (time.monotonic() - report.arrived))

    def _report(self, kind: str, caller: Caller | None) -> Report:
        if self.queue.closed:
            raise Unavailable("the server is ending", remedy="send the request again; another server will take it",
                              retry_after_s=1)
        return Report(self.name, kind, caller or Caller(), time.monotonic(), time.time())

    def _end(self, report: Report, fault: Fault | None) -> None:
        report.end(fault.kind if fault is not None else None, self._observers)


def _size(ask: CompletionAsk | ChatAsk) -> int:
    """About how many characters must become ids."""
    if isinstance(ask, ChatAsk):
        return sum(len(message.content or "") for message in ask.messages)
    return sum(_item_size(item) for item in ask.prompt)


def _item_size(item: Any) -> int:
    return len(item) if isinstance(item, str) else len(str(item)) if isinstance(item, dict) else 0
