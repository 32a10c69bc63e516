"""Each part of an exchange has its time, and its deadline ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from delivery.deadlines import Alarm, Deadlines
from delivery.egress import Policy
from tests.delivery.sending import (
    FOR_EVER,
    OK,
    fails_with,
    never_answers,
    post,
    replies_for_ever,
    transport_for,
)

if TYPE_CHECKING:
    from tests.delivery.conftest import Script, StartReceiver


@pytest.mark.parametrize(
    ("deadlines", "scheme", "script", "code"),
    [
        pytest.param(
            Deadlines(dns=FOR_EVER, connect=0.1, first_byte=FOR_EVER, total=FOR_EVER),
            "https",
            never_answers,
            "connect",
            id="connect",
        ),
        pytest.param(
            Deadlines(connect=FOR_EVER, first_byte=0.1, total=FOR_EVER),
            "http",
            never_answers,
            "timeout",
            id="first-byte",
        ),
        pytest.param(
            Deadlines(connect=FOR_EVER, first_byte=FOR_EVER, total=0.1),
            "http",
            replies_for_ever(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", b"x", 0.02),
            "timeout",
            id="total",
        ),
    ],
)
async def test_each_deadline_holds_by_itself(
    deadlines: Deadlines,
    scheme: str,
    script: Script,
    code: str,
    start_receiver: StartReceiver,
    loopback: Policy,
) -> None:
    receiver = await start_receiver(script)
    async with transport_for(loopback, deadlines=deadlines) as transport:
        assert await fails_with(transport, f"{scheme}://127.0.0.1:{receiver.port}/") == code


def replies_late(pause: float, *pieces: bytes) -> Script:
    """Write the first piece at once, each of the others after `pause` seconds more."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(pieces[0])
        for piece in pieces[1:]:
            await asyncio.sleep(pause)
            writer.write(piece)

    return script


@pytest.mark.parametrize(
    ("deadlines", "pieces"),
    [
        pytest.param(
            Deadlines(dns=0, connect=1, first_byte=FOR_EVER, total=FOR_EVER),
            (b"", OK),
            id="connect",
        ),
        pytest.param(
            Deadlines(dns=0, connect=FOR_EVER, first_byte=1, total=FOR_EVER),
            (OK[:-2], OK[-2:]),
            id="first-byte",
        ),
    ],
)
async def test_a_deadline_ends_with_its_part(
    deadlines: Deadlines, pieces: tuple[bytes, ...], start_receiver: StartReceiver, loopback: Policy
) -> None:
    receiver = await start_receiver(replies_late(1.2, *pieces))
    async with transport_for(loopback, deadlines=deadlines) as transport:
        response = await post(transport, f"http://127.0.0.1:{receiver.port}/")
    assert response.status_code == 200


async def test_waiting_for_a_free_connection_has_a_deadline(
    start_receiver: StartReceiver, loopback: Policy
) -> None:
    receiver = await start_receiver(never_answers)
    deadlines = Deadlines(dns=0.1, connect=0.1, first_byte=0.3, total=FOR_EVER)
    async with transport_for(loopback, deadlines=deadlines, connections=1) as transport:
        url = f"http://127.0.0.1:{receiver.port}/"
        first, second = await asyncio.gather(fails_with(transport, url), fails_with(transport, url))
    assert (first, second) == ("timeout", "connect")


class HandTimers:
    """Timers whose time is moved by the test."""

    def __init__(self) -> None:
        self.now = 0.0
        self.made = 0
        self._due: dict[int, tuple[float, Callable[[], None]]] = {}

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> HandTimer:
        self.made += 1
        self._due[self.made] = when, callback
        return HandTimer(self, self.made)

    def cancel(self, number: int) -> None:
        self._due.pop(number, None)

    def go_to(self, moment: float) -> None:
        """Move the time, and let what is due happen."""
        self.now = moment
        for number, (when, callback) in list(self._due.items()):
            if when <= moment:
                del self._due[number]
                callback()


@dataclass(frozen=True, slots=True)
class HandTimer:
    timers: HandTimers
    number: int

    def cancel(self) -> None:
        self.timers.cancel(self.number)


async def test_an_alarm_that_moves_away_needs_one_timer() -> None:
    timers = HandTimers()
    with Alarm(timers, 8.0) as alarm:
        for until in (13.0, 20.0):
            alarm.move(until)
        assert timers.made == 1
        timers.go_to(8.0)
        timers.go_to(19.0)
        assert timers.made == 2
    timers.go_to(20.0)
    await asyncio.sleep(0)


async def wait_under(alarm: Alarm, moves: Sequence[float], timers: HandTimers) -> float:
    """Wait for ever, moving the time on by and by; return the instant at which that ended."""
    with suppress(TimeoutError), alarm:
        for each in moves:
            alarm.move(each)
        while timers.now < 100:
            timers.go_to(timers.now + 0.5)
            await asyncio.sleep(0)
    return timers.now


@pytest.mark.parametrize("moves", [(), (3.0,), (20.0,), (20.0, 3.0), (3.0, 20.0), (8.0, 8.0)])
async def test_an_alarm_rings_at_the_last_instant_it_was_given(moves: tuple[float, ...]) -> None:
    timers = HandTimers()
    assert await wait_under(Alarm(timers, 8.0), moves, timers) == (8.0, *moves)[-1]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancellation_of_somebody_else_passes_an_alarm_that_rang() -> None:
    timers = HandTimers()

    async def wait() -> None:
        with Alarm(timers, 1.0):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    timers.go_to(1.0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelling() == 1
