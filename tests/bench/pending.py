"""What a backlog costs: P6, a million pending deliveries against a thousand."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median

from tests.bench.backlog import Backlog, body_of
from tests.bench.bench import Bench
from tests.bench.machine import processor_seconds
from tests.bench.report import Figure
from tests.bench.samples import described
from tests.bench.surroundings import SinkHandle, Surroundings, sink, surroundings

_ENDPOINTS = 50
_BODY = 200
_FEW = 1_000
_LOT = 20_000
_DRAIN = 120.0
_BYTES_ALLOWED = 700


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Processor time for one delivery, in µs."""

    store: float
    sender: float

    @property
    def both(self) -> float:
        """Return what both take together."""
        return self.store + self.sender


async def p6(bench: Bench) -> Figure:
    """Processor time of store and sender for one delivery, and bytes that one waiting takes.

    Two stores, each with a sender of its own, take turns: one with many pending, one with few.
    """
    many, rounds = bench.pick(1_000_000, 10_000), bench.pick(8, 1)
    few_costs: list[Cost] = []
    many_costs: list[Cost] = []
    async with (
        surroundings() as other,
        _meter(bench, other) as few,
        _meter(bench, bench.around) as much,
    ):
        each = await _fill(bench, much, many)
        for number in range(rounds):
            bench.progress.at("P6", "a delivery's cost", 0.7 + 0.3 * number / rounds)
            few_costs.append(await few.of_few(times=5))
            many_costs.append(await much.of_many(5 * _FEW))
    little, lot = _median(few_costs), _median(many_costs)
    ratio = lot.both / little.both
    return Figure(
        name="P6",
        what=f"cost of a delivery with {many:,} pending, against {_FEW:,}",
        target=f"1.25 times it; {_BYTES_ALLOWED} bytes",
        measured=f"{lot.both:.0f} µs of {little.both:.0f} µs; {each:.0f} bytes",
        ratio=ratio,
        ok=ratio <= 1.25 and each <= _BYTES_ALLOWED,
        details={
            "manyMicroseconds": _described(many_costs),
            "fewMicroseconds": _described(few_costs),
            "pending": many,
            "bytesBeyondBody": round(each),
        },
    )


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(
        store=median(each.store for each in costs), sender=median(each.sender for each in costs)
    )


def _described(costs: Sequence[Cost]) -> dict[str, dict[str, float]]:
    return {
        "store": described([each.store for each in costs], 1),
        "sender": described([each.sender for each in costs], 1),
    }


async def _fill(bench: Bench, meter: _Meter, many: int) -> float:
    """Leave so many pending; return the bytes that each takes beyond its body."""
    before = await meter.around.kept_bytes()
    lots = max(1, many // _LOT)
    for number in range(lots):
        bench.progress.at("P6", f"{many:,} deliveries", 0.7 * number / lots)
        await meter.backlog.add(many // lots, meter.body)
    return (await meter.around.kept_bytes() - before) / many - len(meter.body)


@asynccontextmanager
async def _meter(bench: Bench, around: Surroundings) -> AsyncIterator[_Meter]:
    """Run a sender that has had a success everywhere, so that nothing is held back any more."""
    body = body_of(_BODY)
    async with sink(_ENDPOINTS) as to:
        backlog = await Backlog.to(around, to.places)
        with around.delivery() as process:
            await backlog.add(bench.pick(100, 10) * _ENDPOINTS, body)
            await backlog.drained(_DRAIN)
            yield _Meter(around=around, to=to, backlog=backlog, body=body, process=process)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meter:
    """Lets a delivery process work only while it is measured."""

    around: Surroundings
    to: SinkHandle
    backlog: Backlog
    body: bytes
    process: subprocess.Popen[bytes]

    def __post_init__(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    async def of_few(self, *, times: int) -> Cost:
        """Return the cost of what is pending a thousand at a time, from the first to the last."""
        costs = []
        for _ in range(times):
            await self.backlog.add(_FEW, self.body)
            before = self._used()
            self.process.send_signal(signal.SIGCONT)
            await self.backlog.drained(_DRAIN)
            self.process.send_signal(signal.SIGSTOP)
            costs.append(_cost(before, self._used(), _FEW))
        return _median(costs)

    async def of_many(self, sample: int) -> Cost:
        """Return the cost within a backlog that is not at its end."""
        await self.to.tell(reset=True)
        self.process.send_signal(signal.SIGCONT)
        first, before = await self._at(_FEW)
        last, after = await self._at(_FEW + sample)
        self.process.send_signal(signal.SIGSTOP)
        return _cost(before, after, last - first)

    async def _at(self, count: int) -> tuple[int, tuple[float, float]]:
        """Wait until so many have arrived; return how many, and what has been used by then."""

        async def enough_arrived() -> bool:
            return await self.to.count() >= count

        await self.around.until(enough_arrived, "too little was delivered", every=0.005)
        return await self.to.count(), self._used()

    def _used(self) -> tuple[float, float]:
        return processor_seconds(self.around.store_pid), processor_seconds(self.process.pid)


def _cost(before: tuple[float, float], after: tuple[float, float], count: int) -> Cost:
    store, sender = (
        1e6 * (late - early) / count for early, late in zip(before, after, strict=True)
    )
    return Cost(store=store, sender=sender)
