"""What every figure is measured with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from tests.bench.report import Figure, Progress
from tests.bench.surroundings import Surroundings

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A run of the benchmark.

    Attributes:
        around: stores and processes.
        progress: is told how far it is.
        quick: whether all is only to be tried, in a second or two each.
    """

    around: Surroundings
    progress: Progress
    quick: bool

    def pick(self, full: T, quick: T) -> T:
        """Return the size for this run."""
        return quick if self.quick else full


Measure = Callable[[Bench], Awaitable[Figure]]
"""Measures one figure; leaves the store as it likes."""


async def open_loop(
    *, rate: float, seconds: float, act: Callable[[float], Awaitable[None]]
) -> None:
    """Call `act` with the instant at which it is due, `rate` a second, however long others take.

    Instants are those of the monotonic clock, so that processes can compare them.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            due = began + number / rate
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            group.create_task(_act(act, due))


async def _act(act: Callable[[float], Awaitable[None]], due: float) -> None:
    await act(due)
