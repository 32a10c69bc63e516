"""What a backlog costs: P6, a million pending deliveries against a thousand."""

from __future__ import annotations

import signal
import subprocess
from statistics import median

from tests.bench.backlog import Backlog, body_of
from tests.bench.bench import Bench
from tests.bench.machine import processor_seconds
from tests.bench.report import Figure
from tests.bench.samples import described, ratios
from tests.bench.surroundings import SinkHandle, sink

_ENDPOINTS = 50
_BODY = 200
_FEW = 1_000
_DRAIN = 120.0
_BYTES_ALLOWED = 700


async def p6(bench: Bench) -> Figure:
    """Processor time of store and sender for one delivery, and bytes that one waiting takes."""
    many, sample, rounds = (
        bench.pick(1_000_000, 10_000), bench.pick(20_000, 1_000), bench.pick(20, 1),
    )  # fmt: skip
    body = body_of(_BODY)
    async with sink(_ENDPOINTS) as to:
        await bench.around.empty()
        backlog = await Backlog.to(bench.around, to.ports)
        with bench.around.delivery() as process:
            meter = _Meter(bench, to, process)
            await meter.warm_up(backlog, body)
            few = []
            for number in range(rounds):
                bench.progress.at("P6", f"{_FEW} pending", number / rounds / 4)
                few.append(await meter.of(backlog, body, add=_FEW, sample=_FEW))
            before = await _used_bytes(bench)
            lot = min(many, 50_000)
            for number in range(many // lot):
                bench.progress.at("P6", "a backlog", 0.25 + number / (many // lot) / 2)
                await backlog.add(lot, body)
            each = (await _used_bytes(bench) - before) / many - len(body)
            bench.progress.at("P6", f"{many} pending", 0.75)
            parts = max(1, rounds)
            much = [
                await meter.of(backlog, body, add=0, sample=sample // parts) for _ in range(parts)
            ]
        await bench.around.empty()
    ratio = ratios(much, few)
    return Figure(
        name="P6",
        what=f"cost of a delivery with {many:,} pending, against {_FEW:,}",
        target=f"1.25 times it; {_BYTES_ALLOWED} bytes",
        measured=f"{median(much):.0f} µs of {median(few):.0f} µs; {each:.0f} bytes",
        ratio=ratio,
        ok=ratio <= 1.25 and each <= _BYTES_ALLOWED,
        details={
            "manyMicroseconds": described(much, 1),
            "fewMicroseconds": described(few, 1),
            "pending": many,
            "bytesBeyondBody": round(each),
        },
    )


class _Meter:
    """Lets a delivery process work only while it is measured."""

    def __init__(self, bench: Bench, to: SinkHandle, process: subprocess.Popen[bytes]) -> None:
        self._around = bench.around
        self._warmth = bench.pick(100, 10)
        self._to = to
        self._process = process

    async def warm_up(self, backlog: Backlog, body: bytes) -> None:
        """Let every endpoint have had its successes, so that none is held back any more."""
        await backlog.add(self._warmth * _ENDPOINTS, body)
        await backlog.drained(_DRAIN)
        self._process.send_signal(signal.SIGSTOP)

    async def of(self, backlog: Backlog, body: bytes, *, add: int, sample: int) -> float:
        """Return the processor time, in µs, that store and sender take for one delivery."""
        await backlog.add(add, body)
        await self._to.tell(reset=True)
        began = self._used()
        self._process.send_signal(signal.SIGCONT)

        async def enough_arrived() -> bool:
            return await self._to.count() >= sample

        await self._around.until(enough_arrived, "too little was delivered", every=0.005)
        if add:
            await backlog.drained(_DRAIN)
        self._process.send_signal(signal.SIGSTOP)
        return 1e6 * (self._used() - began) / await self._to.count()

    def _used(self) -> float:
        return processor_seconds(self._around.store_pid) + processor_seconds(self._process.pid)


async def _used_bytes(bench: Bench) -> int:
    info = await bench.around.store.client.info("memory")
    return int(info["used_memory"])
