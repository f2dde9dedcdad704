"""Progress: what it counts, what it shows where, and that it never harms the work."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator

import pytest

from openautoglm.core import log, progress, screen
from openautoglm.core.progress import amount, duration


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "monotonic", clock)
    return clock


@pytest.fixture(autouse=True)
def plain_log() -> Iterator[None]:
    logger = log.get()
    before = logger.level, list(logger.handlers)
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(before[0])
    logger.handlers[:] = before[1]


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def take_stderr(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> io.StringIO:
    """Put `stream` in the place of standard error; called by tests, for pytest sets it before each one."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_rate_and_time_left_are_of_the_last_half_minute(clock: Clock) -> None:
    with progress.progress(1000, "train", "tokens") as bar:
        clock.now += 100
        bar.advance(0)
        for _ in range(40):  # 10 tokens a second, after a slow start
            clock.now += 1
            bar.advance(10)
        assert bar.done == 400
        assert bar.rate == pytest.approx(10)
        assert bar.left_s == pytest.approx(60)


def test_work_that_was_done_before_does_not_count_for_the_rate(clock: Clock,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress(100, "train", "steps", done=90) as bar:
        clock.now += 5
        bar.advance(10)
        assert bar.rate == pytest.approx(2)
        assert bar.left_s == 0
    assert capsys.readouterr().err == "train: 100 steps in 5.0 s, 2 steps/s\n"


def test_a_resumption_that_is_known_late_does_not_count_either(clock: Clock,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress(1000, "train", "tokens") as bar:
        clock.now += 3  # loading, and the first step of the resumed run
        bar.resume(900)
        assert (bar.rate, bar.left_s) == (0, None)
        clock.now += 4
        bar.advance(20)
        assert bar.rate == pytest.approx(5)
        assert bar.left_s == pytest.approx(16)
    assert capsys.readouterr().err == "train: 920 tokens in 7.0 s, 5 tokens/s\n"


def test_without_a_terminal_a_line_comes_every_ten_seconds(clock: Clock,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress(60, "clean", "rows") as bar:
        for _ in range(30):
            clock.now += 1
            bar.advance(2, kept=bar.done + 2)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["clean: 20/60 rows (33%), 2 rows/s, 20.0 s left  kept 20",
                     "clean: 40/60 rows (67%), 2 rows/s, 10.0 s left  kept 40",
                     "clean: 60/60 rows (100%), 2 rows/s, 0.0 s left  kept 60",
                     "clean: 60 rows in 30.0 s, 2 rows/s  kept 60"]


def test_lines_go_through_the_log_where_it_is_configured(clock: Clock,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json")
    with progress.progress(None, "read", "rows") as bar:
        clock.now += 11
        bar.advance(22)
    first = capsys.readouterr().err.splitlines()[0]
    assert '"level": "info"' in first
    assert "read: 22 rows, 2 rows/s" in first


def test_a_level_above_info_is_silent(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("text", "warning")
    with progress.progress(10, "read", "rows") as bar:
        clock.now += 100
        bar.advance(10)
    assert capsys.readouterr().err == ""


def test_short_work_leaves_nothing_behind(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress(10, "read", "rows") as bar:
        clock.now += 0.5
        bar.advance(10)
    assert capsys.readouterr().err == ""


def test_an_error_passes_and_is_told_from_a_finish(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with progress.progress(10, "read", "rows") as bar:
            clock.now += 2
            bar.advance(4)
            raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        work()
    assert capsys.readouterr().err == "read: stopped after 4 rows in 2.0 s, 2 rows/s\n"


def test_nested_bars_share_one_screen_and_may_end_in_any_order(monkeypatch: pytest.MonkeyPatch,
                                                               clock: Clock) -> None:
    terminal = take_stderr(monkeypatch, Terminal())
    outer = progress.progress(10, "search", "trials")
    inner = progress.progress(None, "train [0]", "tokens")
    first, second = outer.__enter__(), inner.__enter__()
    clock.now += 2
    first.advance(1)
    second.advance(7, loss=0.5)
    outer.__exit__(None, None, None)
    assert screen._SCREEN._display is not None
    inner.__exit__(None, None, None)
    assert screen._SCREEN._display is None
    text = terminal.getvalue()
    assert "search: 1 trials in 2.0 s, 0.5 trials/s" in text
    assert "train [0]: 7 tokens in 2.0 s, 3.5 tokens/s  loss 0.5" in text


def test_log_lines_stand_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = take_stderr(monkeypatch, Terminal())
    log.configure("text")
    with progress.progress(10, "search", "trials"):
        log.get("search").warning("a trial failed")
    assert "WARNING search: a trial failed" in terminal.getvalue()
    assert sys.stderr is terminal


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_closed_standard_error_does_not_end_the_work(monkeypatch: pytest.MonkeyPatch, clock: Clock,
                                                       is_terminal: bool) -> None:
    stream = take_stderr(monkeypatch, Terminal() if is_terminal else io.StringIO())
    with progress.progress(10, "read", "rows") as bar:
        stream.close()
        clock.now += 20
        bar.advance(10)
    assert bar.done == 10
    with progress.progress(10, "again", "rows") as bar:
        clock.now += 20
        bar.advance(3)
    assert bar.done == 3


def test_no_standard_error_at_all(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with progress.progress(10, "read", "rows") as bar:
        clock.now += 20
        bar.advance(10)
    assert bar.done == 10


@pytest.mark.parametrize(("value", "text"), [(12, "12"), (1234567.0, "1,234,567"), (0.123456, "0.1235"),
                                             (1234.5, "1,234"), ("greedy", "greedy"), (float("nan"), "nan"),
                                             (float("inf"), "inf")])
def test_figures_are_for_people(value: float | str, text: str) -> None:
    assert amount(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (59.0, "59.0 s"), (187, "3:07"),
                                               (7387, "2:03:07")])
def test_times_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
