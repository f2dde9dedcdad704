"""Whether an engine makes progress: its steps are counted, not its process."""

from __future__ import annotations

from openautoglm.serve.worker.settings import WorkerSettings

_TICKS, _LONGEST_TICK_S = 8, 5.0
_STEPS_OF_PATIENCE = 8


class Progress:
    """Is told what comes from an engine, and asked at every tick.

    Counts ticks of the server's own loop and not the clock, so that a loop which was busy itself blames nobody.

    Attributes:
        heard: messages so far.
        slow_s: what a step may well take.
        silent_s: for how long there was no step, though there was work.
        tick_s: time between ticks.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self.tick_s = min(settings.stall_s / _TICKS, _LONGEST_TICK_S)
        self.heard, self.slow_s, self.silent_s = 0, 0.0, 0.0
        self._steps, self._moved = -1, 0
        self._before, self._asked = (0, 0), False

    def advance(self, steps: int, busy: bool) -> None:
        """The engine has done so many steps, and has more to do or not."""
        if steps != self._steps or not busy:
            self._moved += 1
        self._steps = steps

    def tick(self) -> bool:
        """Time has passed; True when the engine shall be asked how it stands."""
        heard, moved = self._before
        self.silent_s = 0.0 if self._moved != moved else self.silent_s + self.tick_s
        silent = self.heard == heard
        ask = silent and not self._asked
        self._asked = silent
        self._before = self.heard, self._moved
        return ask

    @property
    def patience_s(self) -> float:
        """For how long the engine may make no progress."""
        settings = self._settings
        steps_s = min(_STEPS_OF_PATIENCE * self.slow_s, settings.start_s)
        return max(settings.stall_s, 2 * settings.engine.max_wait, steps_s)

    @property
    def steady(self) -> bool:
        """Whether there was progress lately."""
        return self.silent_s < self.patience_s / 2

    @property
    def hangs(self) -> bool:
        """Whether the engine is given up."""
        return self.silent_s >= self.patience_s
