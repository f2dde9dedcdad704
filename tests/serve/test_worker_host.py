"""The engine's side of the connection, on an engine without a model, spoken to message by message."""

from __future__ import annotations

import random
import socket
import threading
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from fake_program import FakeProgram, fake_logits, greedy_text
from grammar_tools import tokenizer

from openautoglm.engine.engine import Engine
from openautoglm.engine.grammar import GrammarCompiler
from openautoglm.engine.request import Decoding
from openautoglm.engine.settings import EngineSettings
from openautoglm.serve.intake import Intake
from openautoglm.serve.worker.frames import Frames, ProtocolError, framed
from openautoglm.serve.worker.host import Host
from openautoglm.serve.worker.messages import (
    FROM_ENGINE,
    Ask,
    Beat,
    Cancel,
    Hello,
    Leave,
    Message,
    Ping,
    Refused,
    Setup,
    Step,
    decode,
    encode,
)

VOCAB = tokenizer().vocab_size
LIVELY = Decoding(max_new_tokens=20, ignore_stop=True)


def logits(history: Any) -> Any:
    return fake_logits(history, VOCAB)


class Peer:
    """The server's end, and the host's thread."""

    def __init__(self, near: socket.socket, engine: Engine, error: list[Exception]) -> None:
        self.near, self.engine, self.error = near, engine, error
        self.frames = Frames()
        self.inbox: list[Message] = []

    def send(self, *messages: Message) -> None:
        self.near.sendall(b"".join(framed(encode(message)) for message in messages))

    def ask(self, number: int, prompt: list[int], decoding: Decoding = LIVELY, **more: Any) -> None:
        options = {"priority": 0, "timeout_s": None, "grammar": None, "stops": (), "salt": b"", "id": "", **more}
        self.send(Ask(number, array("i", prompt).tobytes(), decoding.model_dump_json(exclude_defaults=True), **options))

    def receive(self) -> Message:
        while not self.inbox:
            some = self.near.recv(65536)
            if not some:
                raise EOFError
            self.inbox += [decode(body, FROM_ENGINE) for body in self.frames.feed(some)]
        return self.inbox.pop(0)

    def until_end(self) -> None:
        """Read until the connection ends."""
        try:
            while True:
                self.receive()
        except (EOFError, ConnectionResetError):
            return

    def until_idle(self) -> Beat:
        """Read until the engine has nothing to do."""
        while True:
            message = self.receive()
            if isinstance(message, Beat) and not message.busy:
                return message

    def until_over(self, *numbers: int) -> dict[int, Any]:
        """The tokens of requests by number, or why they failed."""
        found: dict[int, Any] = {number: {} for number in numbers}
        left = set(numbers)
        while left:
            message = self.receive()
            if isinstance(message, Refused):
                found[message.number] = message
                left.discard(message.number)
            elif isinstance(message, Step):
                for number, token in zip(array("i", message.numbers), array("i", message.ids), strict=True):
                    found.setdefault(number, {}).setdefault(0, []).append(token)
                for number, copy, ids, *_ in message.pieces:
                    if number in found:
                        found[number].setdefault(copy, []).extend(ids)
                left -= set(array("i", message.ended))
        return found


@contextmanager
def host(compiler: Any = None, program: FakeProgram | None = None, **settings: Any) -> Iterator[Peer]:
    engine = Engine(program or FakeProgram(vocab=VOCAB, logits=logits), EngineSettings(**settings))
    near, far = socket.socketpair()
    near.settimeout(60)
    error: list[Exception] = []
    opened: Any = SimpleNamespace(engine=engine, compiler=compiler or GrammarCompiler(tokenizer().pieces),
                                  intake=Intake(engine, tokenizer().decode, compiler))

    def work() -> None:
        try:
            with far:
                Host(far, opened, 0.001).run()
        except Exception as raised:
            error.append(raised)

    thread = threading.Thread(target=work)
    thread.start()
    peer = Peer(near, engine, error)
    try:
        yield peer
    finally:
        near.close()
        thread.join(60)
        assert not thread.is_alive()


def test_tokens_are_the_engines() -> None:
    prompts = {number: [5 + number, 6] for number in range(10)}
    with host() as peer:
        for number, prompt in prompts.items():
            peer.ask(number, prompt)
        found = peer.until_over(*prompts)
        for number, prompt in prompts.items():
            assert found[number] == {0: greedy_text(prompt, 20, logits=logits, stops=())}


def test_several_answers_and_log_probabilities() -> None:
    several = Decoding(max_new_tokens=6, temperature=1.0, n=3, seed=2, ignore_stop=True)
    with host() as peer:
        peer.ask(1, [5], several)
        found = peer.until_over(1)[1]
        expected = Engine(FakeProgram(vocab=VOCAB, logits=logits)).generate([[5]], several)[0]
        assert [found[copy] for copy in range(3)] == [list(candidate.ids) for candidate in expected]
        peer.ask(2, [5], Decoding(max_new_tokens=2, logprobs=2, ignore_stop=True))
        message = peer.receive()
        while not isinstance(message, Step):
            message = peer.receive()
        _, _, ids, logprobs, alternatives, *_ = message.pieces[0]
        assert alternatives[0][0] == (ids[0], pytest.approx(logprobs[0], abs=1e-5))


def test_what_cannot_be_served_is_refused_alone() -> None:
    with host() as peer:
        peer.ask(1, [])
        peer.ask(2, [VOCAB])
        peer.ask(3, [5])
        peer.ask(4, [5] * 128)
        peer.send(Ask(5, array("i", [5]).tobytes(), '{"temperature": "hot"}', 0, None, None, (), b"", ""))
        peer.ask(6, [5], grammar=("regex", "a"))
        found = peer.until_over(*range(1, 7))
        assert [(found[number].kind, found[number].where) for number in (1, 2, 4, 5, 6)] == [
            ("bad_request", "prompt"), ("bad_request", "prompt"), ("too_long", "prompt"), ("bad_request", "decoding"),
            ("unsupported", "grammar")]
        assert len(found[3][0]) == 20


def test_stop_strings_end_answers() -> None:
    with host() as peer:
        peer.ask(1, [5])
        whole = peer.until_over(1)[1][0]
        stop = tokenizer().decode(whole[:8])[-2:]
        peer.ask(2, [5], stops=(stop,))
        found = peer.until_over(2)[2][0]
        assert found == whole[:len(found)]
        assert stop in tokenizer().decode(found)
        assert len(found) < 20


def test_grammars_hold() -> None:
    pytest.importorskip("llguidance", reason="the extra `serve` is not installed")
    with GrammarCompiler(tokenizer().pieces) as compiler, host(compiler) as peer:
        once = Decoding(max_new_tokens=50)
        peer.ask(1, [5], once, grammar=("choice", '["yes", "no"]'))
        peer.ask(2, [5], once, grammar=("regex", "[0-9]{3}"))
        peer.ask(3, [5], once, grammar=("json_schema", "{"))
        peer.ask(4, [5], once, grammar=("regex", "("))
        peer.ask(5, [5])
        found = peer.until_over(1, 2, 3, 4, 5)
        assert tokenizer().decode(found[1][0]) in ("yes", "no")
        assert tokenizer().decode(found[2][0]).isdigit()
        assert (found[3].kind, found[4].kind) == ("bad_request", "bad_request")
        assert len(found[5][0]) == 20


def test_a_cancelled_request_frees_its_pages_before_the_next_step() -> None:
    gate = threading.Semaphore(0)
    program = FakeProgram(before=lambda step: gate.acquire() and None)
    with host(program=program) as peer:
        peer.ask(1, [5], Decoding(max_new_tokens=100, ignore_stop=True))
        gate.release()
        while not isinstance(peer.receive(), Step):
            pass
        assert peer.engine.stats.pages_held
        peer.send(Cancel(array("i", [1]).tobytes()))
        gate.release()
        peer.until_idle()
        assert peer.engine.stats.pages_held == 0
        assert peer.engine.stats.cancelled == 1
        assert peer.engine.stats.steps <= 2


def test_a_full_queue_says_when_to_come_again() -> None:
    gate = threading.Semaphore(0)
    program = FakeProgram(before=lambda step: gate.acquire(timeout=60) and None)
    with host(program=program, max_batch=1, max_waiting=1) as peer:
        for number in range(4):
            peer.ask(number, [5])
        gate.release(100)
        found = peer.until_over(0, 1, 2, 3)
        refused = [message for message in found.values() if isinstance(message, Refused)]
        assert 1 <= len(refused) <= 3
        assert {message.kind for message in refused} == {"overloaded"}
        assert all(message.retry_after_s >= 1 for message in refused)


def test_a_step_that_fails_takes_its_own_requests_only() -> None:
    failures = [MemoryError("no scratch")]

    def before(step: int) -> None:
        if step == 3 and failures:
            raise failures.pop()

    with host(program=FakeProgram(before=before)) as peer:
        peer.ask(1, [5])
        found = peer.until_over(1)
        assert found[1].kind == "engine_lost"
        peer.ask(2, [5])
        assert len(peer.until_over(2)[2][0]) == 20


def test_deadlines_count_from_arrival() -> None:
    with host() as peer:
        peer.ask(1, [5], timeout_s=-1.0)
        message = peer.receive()
        while not isinstance(message, Step):
            message = peer.receive()
        assert message.pieces == ((1, 0, (), (), (), "deadline", None),)


def test_beats_tell_how_the_engine_stands() -> None:
    with host() as peer:
        peer.send(Ping())
        first = peer.receive()
        assert isinstance(first, Beat)
        assert (first.steps, first.busy) == (0, False)
        peer.ask(1, [5])
        peer.until_over(1)
        message = peer.until_idle()
        assert message.steps == 20
        assert message.stats is not None
        assert message.slow_s > 0


def test_leaving_ends_it() -> None:
    with host() as peer:
        peer.send(Leave())
        peer.until_end()
    assert peer.error == []


@pytest.mark.parametrize("message", [
    framed(b"nonsense"), b"\xff" * 8, framed(encode(Setup("a", "{}", ()))), framed(encode(Ping()))[:-1] + b"\xc1",
    framed(encode(Hello(1, 1, 1, 1, 1, 1, 1, 1, "", ""))), framed(b""),
    framed(encode(Ask(1, b"", "{}", 0, None, None, (), b"", ""))).replace(b"Ask", b"ask")],
    ids=["noise", "long", "setup", "cut", "hello", "empty", "kind"])
def test_what_is_no_message_ends_the_connection(message: bytes) -> None:
    with host() as peer:
        peer.near.sendall(message)
        peer.until_end()
    assert isinstance(peer.error[0], ProtocolError)


def test_a_number_twice_ends_the_connection() -> None:
    gate = threading.Event()
    with host(program=FakeProgram(before=lambda step: gate.wait(60) and None)) as peer:
        peer.ask(1, [5])
        peer.ask(1, [5])
        gate.set()
        peer.until_end()
    assert isinstance(peer.error[0], ProtocolError)


def test_random_traffic_leaves_nothing_behind() -> None:
    dice = random.Random(4)
    with host(max_batch=4, max_waiting=6) as peer:
        live: set[int] = set()
        for number in range(150):
            peer.ask(number, [dice.randrange(5, 60) for _ in range(dice.randrange(1, 30))],
                     Decoding(max_new_tokens=dice.randrange(1, 40), ignore_stop=True))
            live.add(number)
            if dice.random() < 0.3:
                gone = dice.sample(sorted(live), min(len(live), 2))
                live -= set(gone)
                peer.send(Cancel(array("i", gone).tobytes()))
        peer.until_over(*live)
        for _ in range(2000):  # cancelled ones may still be on their way, and the last is counted after its pages
            stats = peer.engine.stats
            if not (stats.pages_held or stats.waiting) and stats.requests == stats.finished + stats.cancelled:
                break
            peer.send(Ping())
            peer.receive()
        assert (stats.pages_held, stats.waiting) == (0, 0)
        assert stats.requests == stats.finished + stats.cancelled > 0
