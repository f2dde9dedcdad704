"""Requests under way, at the server's end: pieces wait here until their reader takes them."""

from __future__ import annotations

import asyncio
from array import array
from collections import deque

import numpy as np
from numpy.typing import NDArray

from openautoglm.engine.request import Piece
from openautoglm.serve.backend import late
from openautoglm.serve.faults import ClientGone, Fault, Internal
from openautoglm.serve.orders import Tap

_ALTERNATIVE = 4  # tokens' worth of memory, at least


class Call:
    """One request; for one event loop.

    What its reader has not taken yet is kept: single tokens as numbers, which a slow reader gets together, and pieces
    with log-probabilities as they are.

    Args:
        most: tokens that may wait, an alternative as four of them; with more of them the request fails.
        tap: is shown a token that comes while the reader waits for it; see `Order`.

    Attributes:
        over: nothing more comes from the engine.
        states: fp32 [texts, hidden], where hidden states were asked for.
    """

    __slots__ = ("_begun", "_fault", "_held", "_most", "_pieces", "_tap", "_tokens", "_waiter", "number", "over",
                 "states", "timer")

    def __init__(self, number: int, most: int, tap: Tap | None = None) -> None:
        self.number, self.over = number, False
        self.states: NDArray[np.float32] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._most, self._held, self._begun, self._tap = most, 0, False, tap
        self._tokens = array("i")
        self._pieces: deque[Piece] = deque()
        self._fault: Fault | None = None
        self._waiter: asyncio.Future[None] | None = None

    def token(self, token: int) -> bool:
        """Take one token of the first answer; False when too many wait."""
        waiter = self._waiter
        if waiter is not None and self._tap is not None and self._begun and not waiter.done():
            try:
                if self._tap(token):
                    return True
            except Exception as error:  # it concerns this request alone
                fault = Internal("an answer could not be written")
                fault.__cause__ = error
                self.fail(fault)
                return False
        self._tokens.append(token)
        return self._hold(1)

    def piece(self, piece: Piece) -> bool:
        """Take a piece; False when too many wait."""
        if self._tokens:
            self._flush()
        self._pieces.append(piece)
        return self._hold(_size(piece))

    def end(self) -> None:
        """Nothing more comes."""
        self.over = True
        self._wake()

    def fail(self, fault: Fault) -> None:
        """Nothing more comes; the reader gets the fault when it has taken what came before."""
        if not self.over:
            self._fault = fault
            self.end()

    async def next(self) -> Piece | None:
        """Return the next piece; None after the last one.

        Raises:
            Fault: the request has failed, or its deadline came before its first token.
        """
        while True:
            if self._pieces:
                piece = self._pieces.popleft()
                self._held -= _size(piece)
            elif self._tokens:
                piece = Piece(0, tuple(self._tokens))
                self._held -= len(self._tokens)
                del self._tokens[:]
            elif self.over:
                if self._fault is not None:
                    raise self._fault
                return None
            else:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
                continue
            if not self._begun and piece.finish == "deadline" and not piece.ids:
                raise late()
            self._begun = True
            return piece

    def _hold(self, more: int) -> bool:
        self._held += more
        if self._held <= self._most:
            self._wake()
            return True
        self._pieces.clear()
        del self._tokens[:]
        self.fail(ClientGone("the reader is too slow: more of its answer waits than is kept"))
        return False

    def _flush(self) -> None:
        self._pieces.append(Piece(0, tuple(self._tokens)))
        del self._tokens[:]

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _size(piece: Piece) -> int:
    return len(piece.ids) + _ALTERNATIVE * sum(map(len, piece.alternatives))
