"""The answers to one request while they grow: pieces of ids come from the backend, text goes to the client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace

from openautoglm.data.records import Question
from openautoglm.engine.consensus import choose
from openautoglm.engine.request import Piece
from openautoglm.serve.backend import Backend
from openautoglm.serve.faults import ClientGone, EngineLost, Fault, Internal, TimedOut
from openautoglm.serve.orders import Order, Tap
from openautoglm.serve.service.answer_text import AnswerText, TokenTexts
from openautoglm.serve.service.conversations import Talk
from openautoglm.serve.service.decoding import Way
from openautoglm.serve.service.merge import merged
from openautoglm.serve.service.queue import Place
from openautoglm.serve.service.values import Delta, Finish, Observer, Report, Usage


@dataclass
class Job:
    """One prompt of a request: its order, what it was made of, its tokens at most, and its place in the queue."""

    order: Order
    question: Question | None
    tokens: int
    place: Place | None = None


class Answering:
    """All answers to one request. Iterate `stream` once, within ``aclosing``; leaving it cancels the request.

    Attributes:
        usage: tokens so far.
        tool: the function that the answers call; None where they are text.
        unkept: why the turn was not kept in its conversation, after the answer has ended; None where it was.
    """

    def __init__(self, backend: Backend, jobs: Sequence[Job], way: Way, report: Report, *, pieces: Sequence[bytes],
                 texts: TokenTexts, drop: str, stops: Sequence[str], places: ExitStack, observers: Sequence[Observer],
                 talk: Talk | None) -> None:
        self._backend, self._jobs, self._way, self._report = backend, jobs, way, report
        self._pieces, self._texts, self._drop, self._stops = pieces, texts, drop, stops
        self._places, self._observers, self._talk = places, observers, talk
        self._answers: dict[int, AnswerText] = {}
        self._kept: list[str] = []
        self._over: set[int] = set()
        self._asked = report.arrived
        self.tool = way.tool
        self.unkept: Fault | None = None

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return self._report.usage

    @property
    def count(self) -> int:
        """Answers that come."""
        per_prompt = 1 if self._way.rerank is not None else self._way.decoding.n
        return len(self._jobs) * per_prompt * self._way.copies

    def tap(self, ready: Callable[[], bool], take: Callable[[Delta], None]) -> None:
        """Show deltas of single tokens to `take` the moment they come, and yield the others; before `stream`.

        This saves waking the reader for each token. Their order is kept: it happens while the reader waits for the next
        delta alone. Where several prompts, reranking or stop strings ask for more, all deltas are yielded.

        Args:
            ready: whether `take` may be called now.
            take: must neither fail nor wait.
        """
        if len(self._jobs) > 1 or self._way.rerank is not None or self._way.copies > 1 or self._stops:
            return
        job = self._jobs[0]
        self._jobs = [replace(job, order=replace(job.order, tap=self._tap(job, ready, take)))]

    def _tap(self, job: Job, ready: Callable[[], bool], take: Callable[[Delta], None]) -> Tap:
        def tap(token: int) -> bool:
            if not ready():
                return False
            delta = self._delta(0, job, Piece(0, (token,)))
            if delta is not None:
                if self._talk is not None:
                    self._kept.append(delta.text)
                take(delta)
            return True

        return tap

    def cancel(self) -> None:
        """Give up an answering that was never streamed."""
        self._close(ClientGone("the client has left"))

    async def stream(self) -> AsyncGenerator[Delta, None]:
        """Yield what is added to the answers.

        Raises:
            Fault: as `Backend.stream`; TimedOut too where the deadline comes under way.
        """
        fault: Fault | None = ClientGone("the client has left")
        self._asked = time.monotonic()
        try:
            async with aclosing(self._deltas()) as deltas:
                async for delta in deltas:
                    if self._talk is not None and not delta.choice:
                        self._kept.append(delta.text)
                    yield delta
            fault = None
            if self._talk is not None:
                self.unkept = await self._keep(self._talk)
        except Fault as error:
            fault = error
            raise
        except Exception:
            fault = Internal("the service failed")
            raise
        finally:
            self._close(fault)

    async def _keep(self, talk: Talk) -> Fault | None:
        """Keep the turn; an answer that was given is not lost because it cannot be kept."""
        try:
            await talk.keep("".join(self._kept))
        except Fault as fault:
            return fault
        return None

    def _deltas(self) -> AsyncGenerator[Delta, None]:
        if self._way.rerank is not None:
            return merged([self._chosen(number, job) for number, job in enumerate(self._jobs)])
        streams = [self._of_job(number, job) for number, job in enumerate(self._jobs)]
        return streams[0] if len(streams) == 1 else merged(streams)

    async def _of_job(self, number: int, job: Job) -> AsyncGenerator[Delta, None]:
        """The deltas of one prompt's answers."""
        n, copies = self._way.decoding.n, self._way.copies
        first = number * n * copies
        async with aclosing(self._backend.stream(job.order)) as pieces:
            async for piece in pieces:
                if piece.finish == "error":
                    continue  # the fault itself follows
                delta = self._delta(first + piece.copy * copies, job, piece)
                if delta is not None:
                    yield delta
                    for copy in range(1, copies):
                        self.usage.completion_tokens += len(piece.ids)
                        yield delta._replace(choice=delta.choice + copy)
                    if delta.finish is not None and self._finished(delta, first, n, copies):
                        return
        raise EngineLost("the answers have no end")

    def _finished(self, delta: Delta, first: int, n: int, copies: int) -> bool:
        """Note the end of an answer; whether all of this prompt have ended."""
        self._over.add(delta.choice)
        self._report.finishes += [str(delta.finish)] * copies
        return all(first + copy * copies in self._over for copy in range(n))

    async def _chosen(self, number: int, job: Job) -> AsyncGenerator[Delta, None]:
        """One delta: the text that is chosen among all that the engine made for a prompt."""
        way = self._way
        assert way.rerank is not None
        texts, finishes = [""] * way.decoding.n, ["stop"] * way.decoding.n
        logprobs = [float("-inf")] * way.decoding.n
        async with aclosing(self._backend.stream(job.order)) as pieces:
            async for piece in pieces:
                if piece.finish == "error":
                    continue
                delta = self._delta(number * way.decoding.n + piece.copy, job, piece)
                if delta is None:
                    continue
                texts[piece.copy] += delta.text
                finishes[piece.copy] = delta.finish or finishes[piece.copy]
                if way.decoding.num_beams > 1 and piece.logprobs:
                    logprobs[piece.copy] = piece.logprobs[0]
        fields = job.question.fields if job.question is not None else ()
        likely = logprobs if max(logprobs) > float("-inf") else None
        chosen = await asyncio.to_thread(choose, texts, fields, way.rerank, likely)
        finish: Finish = "stop" if finishes[chosen] == "stop" else "length"
        self._report.finishes.append(finish)
        yield Delta(number, texts[chosen], (), finish)

    def _delta(self, index: int, job: Job, piece: Piece) -> Delta | None:
        """What a piece adds, as text; None where its answer has ended already."""
        ids, finish = piece.ids, piece.finish
        answer = self._answers.get(index)
        if answer is None:
            drop = self._drop if job.question is not None else ""
            answer = self._answers[index] = AnswerText(self._pieces, self._stops, drop)
        self._note(job, answer, piece)
        if index in self._over:
            return None
        self.usage.completion_tokens += len(ids)
        text = answer.feed(ids) if ids else ""
        logprobs = self._texts.logprobs(ids, piece.logprobs, piece.alternatives) if piece.alternatives else ()
        if finish is None:
            return Delta(index, text, logprobs, "stop" if answer.stopped else None)
        text += answer.finish()
        return Delta(index, text, logprobs, self._finish(finish, stopped=answer.stopped))

    def _finish(self, finish: str, *, stopped: bool) -> Finish:
        if stopped:
            return "stop"
        if finish == "deadline":
            raise TimedOut(f"the time was over after {self.usage.completion_tokens} tokens", where="timeout_s",
                           remedy="allow more time, or ask for fewer tokens")
        if finish == "cancelled":
            raise ClientGone("the request was cancelled")
        return "length" if finish == "length" else "tool_calls" if self.tool else "stop"

    def _note(self, job: Job, answer: AnswerText, piece: Piece) -> None:
        """Keep the times of tokens."""
        if not piece.ids and piece.finish is None:
            return
        now = time.monotonic()
        report = self._report
        if piece.queued_s is not None and report.begun is None:
            report.begun = self._asked + piece.queued_s
        if answer.last is None:
            if job.place is not None:
                job.place.begin()
            if report.first is None:
                report.first = now
                for observer in self._observers:
                    observer.first_token(report.model, now - report.arrived)
        elif piece.ids:
            gap = (now - answer.last) / len(piece.ids)
            for observer in self._observers:
                observer.next_token(report.model, gap)
        report.last = answer.last = now

    def _close(self, fault: Fault | None) -> None:
        if self._report.ended:
            return
        self._places.close()
        self._report.end(fault.kind if fault is not None else None, self._observers)
