"""How many callbacks one delivery process sends: P1 against a bare loop, P2 against the obvious."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from dramatiq import Message
from redis import Redis

from config.settings import environment
from tests.bench.backlog import Backlog, body_of
from tests.bench.bench import Bench
from tests.bench.machine import processor_seconds
from tests.bench.naive import BROKER, make_broker
from tests.bench.report import Figure
from tests.bench.samples import described, ratios
from tests.bench.surroundings import ROOT, BenchError, SinkHandle, Surroundings, sink

_ENDPOINTS = 50
_BODY = 500
_CONCURRENCY = 256
_FROM, _TO = 0.2, 0.95  # of what arrives: neither its beginning nor its end
_DRAIN = 120.0
_NAIVE_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One sender's turn: per second, and processor time in µs for each."""

    rate: float
    sender: float
    store: float = 0.0


def rate_of(marks: Sequence[tuple[int, float]], total: int) -> float:
    """Return how many arrived a second, in the middle of all that did."""
    middle = [mark for mark in marks if _FROM * total <= mark[0] <= _TO * total]
    if len(middle) < 2:
        raise BenchError("too little arrived to measure a rate")
    (first, began), (last, ended) = middle[0], middle[-1]
    return (last - first) / (ended - began)


async def bare_round(to: SinkHandle, body: bytes, count: int) -> Round:
    """Let the bare loop send."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "tests.bench.bare"),
        cwd=ROOT,
        env={**environment(), "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    given = {
        "urls": [f"http://{place}/hook" for place in to.places],
        "body": body.decode(),
        "count": count,
        "concurrency": _CONCURRENCY,
    }
    said, _ = await process.communicate(json.dumps(given).encode())
    ended: dict[str, float] = json.loads(said)
    return Round(rate=count / ended["seconds"], sender=1e6 * ended["processor"] / count)


async def delivery_round(around: Surroundings, to: SinkHandle, body: bytes, count: int) -> Round:
    """Let a delivery process send what waits for it, signed, and record it."""
    backlog = await Backlog.to(around, to.places)
    await backlog.add(count, body)
    await to.tell(reset=True)
    with around.delivery(GATEWAY_DELIVERY_CONCURRENCY=str(_CONCURRENCY)) as process:
        used: list[tuple[int, float, float]] = []
        arrived = 0
        while arrived < _TO * count:
            await asyncio.sleep(0.02)
            if process.poll() is not None:
                raise BenchError("the delivery process ended")
            arrived = await to.count()
            if arrived >= _FROM * count:
                store = processor_seconds(around.store_pid)
                used.append((arrived, processor_seconds(process.pid), store))
        await backlog.drained(_DRAIN)
    (first, *before), (last, *after) = used[0], used[-1]
    sender, store = (
        1e6 * (late - early) / max(1, last - first)
        for early, late in zip(before, after, strict=True)
    )
    marks = (await to.tell(look=True))["marks"]
    return Round(rate=rate_of(marks, count), sender=sender, store=store)


async def p1(bench: Bench) -> Figure:
    """Signed and recorded, against a loop that only sends."""
    count, rounds = bench.pick(20_000, 2_000), bench.pick(5, 1)
    body = body_of(_BODY)
    bare: list[Round] = []
    ours: list[Round] = []
    async with sink(_ENDPOINTS) as to:
        for number in range(rounds):
            bench.progress.at("P1", f"round {number + 1} of {rounds}", number / rounds)
            await bench.around.empty()
            bare.append(await bare_round(to, body, count))
            ours.append(await delivery_round(bench.around, to, body, count))
    ratio = ratios([each.rate for each in ours], [each.rate for each in bare])
    rate = median(each.rate for each in ours)
    return Figure(
        name="P1",
        what="deliveries a second, against a bare aiohttp loop",
        target="0.40 of it",
        measured=f"{rate:,.0f}/s of {median(each.rate for each in bare):,.0f}/s",
        ratio=ratio,
        ok=ratio >= 0.4,
        details={
            "perSecond": described([each.rate for each in ours], 0),
            "barePerSecond": described([each.rate for each in bare], 0),
            "processorMicroseconds": {
                "delivery": round(median(each.sender for each in ours)),
                "store": round(median(each.store for each in ours)),
                "bare": round(median(each.sender for each in bare)),
            },
            "endpoints": _ENDPOINTS,
            "concurrency": _CONCURRENCY,
            "bodyBytes": len(body),
        },
    )


async def p2(bench: Bench) -> Figure:
    """Against an actor a delivery that calls `httpx.post`, one process each."""
    count, naive_count, rounds = (
        bench.pick(20_000, 2_000), bench.pick(600, 120), bench.pick(3, 1),
    )  # fmt: skip
    body = body_of(_BODY)
    naive: list[float] = []
    ours: list[float] = []
    async with sink(_ENDPOINTS) as to:
        for number in range(rounds):
            bench.progress.at("P2", f"round {number + 1} of {rounds}", number / rounds)
            await bench.around.empty()
            naive.append(await _naive_round(bench.around, to, body, naive_count))
            ours.append((await delivery_round(bench.around, to, body, count)).rate)
    ratio = ratios(ours, naive)
    return Figure(
        name="P2",
        what="the same, against an actor a delivery with httpx.post",
        target="10 times it",
        measured=f"{median(ours):,.0f}/s of {median(naive):,.0f}/s",
        ratio=ratio,
        ok=ratio >= 10,
        details={
            "perSecond": described(ours, 0),
            "naivePerSecond": described(naive, 0),
            "naiveThreads": _NAIVE_THREADS,
        },
    )


async def _naive_round(around: Surroundings, to: SinkHandle, body: bytes, count: int) -> float:
    await asyncio.to_thread(_enqueue_naive, around.soft_url, to.places, body, count)
    await to.tell(reset=True)
    command = [sys.executable, "-m", "dramatiq", "tests.bench.naive"]
    sizes = ["--processes", "1", "--threads", str(_NAIVE_THREADS)]
    with around.process("naive", [*command, *sizes], **{BROKER: around.soft_url}):

        async def all_arrived() -> bool:
            return await to.count() >= count

        await around.until(all_arrived, "the actors have not sent all", patience=_DRAIN)
    marks: Any = (await to.tell(look=True))["marks"]
    return rate_of(marks, count)


def _enqueue_naive(url: str, places: Sequence[str], body: bytes, count: int) -> None:
    with Redis.from_url(url) as client:
        broker = make_broker(client)
        for number in range(count):
            target = f"http://{places[number % len(places)]}/hook"
            message: Message[None] = Message(
                queue_name="default",
                actor_name="deliver",
                args=(target, body.decode()),
                kwargs={},
                options={},
            )
            broker.enqueue(message)
