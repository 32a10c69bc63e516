"""Loops beside the main one: a fault is never silent, and an end is an end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from config.tasks import background, cancel_all
from tests.processes import PATIENCE

AGAIN = "config.tasks._AGAIN_SECONDS"


async def lasts() -> None:
    await asyncio.Event().wait()


async def fails() -> None:
    raise LookupError("nobody foresaw this")


async def ends() -> None:
    return


class Stubborn:
    """Swallows cancels, as a connection being made does."""

    def __init__(self, swallows: int) -> None:
        self.left = swallows
        self.begun = asyncio.Event()

    async def loop(self) -> None:
        self.begun.set()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not self.left:
                    raise
                self.left -= 1


@pytest.mark.parametrize(
    ("loop", "faults"), [(fails, 1), (ends, 0), (lasts, 0)], ids=["fails", "ends", "lasts"]
)
async def test_only_a_fault_is_told(
    loop: Callable[[], Coroutine[Any, Any, None]], faults: int, caplog: pytest.LogCaptureFixture
) -> None:
    told = 0

    def tell() -> None:
        nonlocal told
        told += 1

    tasks = background([loop(), lasts()], tell)
    await asyncio.wait(tasks[:1], timeout=0)
    async with asyncio.timeout(PATIENCE):
        await cancel_all(tasks)
    assert told == faults
    assert caplog.text.count("process.loop_failed") == faults
    assert ("nobody foresaw this" in caplog.text) == (faults == 1)


async def test_a_fault_stops_the_main_loop() -> None:
    stopping = asyncio.Event()
    tasks = background([lasts(), fails()], stopping.set)
    async with asyncio.timeout(PATIENCE):
        await stopping.wait()
        await cancel_all(tasks)
    assert [task.cancelled() for task in tasks] == [True, False]


async def test_a_swallowed_cancel_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AGAIN, 0.01)
    stubborn = [Stubborn(swallows) for swallows in range(4)]
    tasks = background([each.loop() for each in stubborn], lambda: None)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(each.begun.wait() for each in stubborn))
        await cancel_all(tasks)
    assert all(task.cancelled() for task in tasks)
    assert not any(each.left for each in stubborn)


async def test_nothing_to_cancel_is_fine() -> None:
    await cancel_all([])
