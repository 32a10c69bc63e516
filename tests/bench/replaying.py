"""What a replay does, and what it does to live traffic: P8."""

from __future__ import annotations

import asyncio
from statistics import median

from config.clock import StoreClock, SystemClock
from config.ids import new_id
from delivery.letters import Filter
from delivery.replay_store import ReplayStore
from delivery.replays import Definition, total
from tests.bench.backlog import Backlog, body_of
from tests.bench.bench import Bench
from tests.bench.lateness import Schedule, lateness
from tests.bench.report import Figure
from tests.bench.samples import described, ratios
from tests.bench.surroundings import sink

_ENDPOINTS = 50
_BODY = 200
_RATE = 100.0
_PIECE = 0.25
_DRAIN = 240.0


async def p8(bench: Bench) -> Figure:
    """Everything dead of a tenant, replayed at once, while the same endpoints get live traffic.

    A part of it at a time, in turns with live traffic alone for as long.
    """
    dead, rounds, seconds = (
        bench.pick(100_000, 5_000), bench.pick(20, 2), bench.pick(4.0, 2.0),
    )  # fmt: skip
    alone: list[list[float]] = []
    beside: list[list[float]] = []
    took = 0.0
    async with sink(_ENDPOINTS) as to:
        await bench.around.empty()
        backlog = await Backlog.to(bench.around, to.places, tenants=1)
        # One attempt is all there is.
        with bench.around.delivery(GATEWAY_DELIVERY_GAPS_SECONDS="[0]"):
            live = Schedule(backlog, backlog.targets, _RATE)
            await backlog.add(bench.pick(100, 10) * _ENDPOINTS, body_of(_BODY))
            await backlog.drained(_DRAIN)
            bench.progress.at("P8", f"{dead:,} die", 0.1)
            await to.tell(fail=list(to.places))
            await backlog.add(dead, body_of(_BODY))
            await backlog.drained(_DRAIN)
            await to.tell(fail=[])
            for number in range(rounds):
                bench.progress.at(
                    "P8", f"round {number + 1} of {rounds}", 0.5 + number / rounds / 2
                )
                await bench.around.settled()
                await to.tell(keep=True)
                await live.run(seconds)
                await backlog.drained(_DRAIN)
                alone.append(await lateness(to))
                await to.tell(keep=True)
                took += await _replay(backlog, live, dead // rounds)
                await backlog.drained(_DRAIN)
                beside.append(await lateness(to))
    without, with_it = ([described(each)["p99"] for each in lists] for lists in (alone, beside))
    rate, ratio = dead / took, ratios(with_it, without)
    return Figure(
        name="P8",
        what=f"replay of {dead:,} dead letters; live p99 beside it, against alone",
        target="1,000/s; 2 times it",
        measured=f"{rate:,.0f}/s; {median(with_it):.1f} ms of {median(without):.1f} ms",
        ratio=ratio,
        ok=rate >= 1_000 and ratio <= 2,
        details={
            "perSecond": round(rate),
            "aloneMilliseconds": [described(each) for each in alone],
            "besideMilliseconds": [described(each) for each in beside],
            "livePerSecond": _RATE,
        },
    )


async def _replay(backlog: Backlog, live: Schedule, number: int) -> float:
    """Replay so many of what is dead, live traffic beside it; return the seconds until the last."""
    around = backlog.around
    clock = StoreClock(SystemClock())
    replays = ReplayStore(around.store, backlog.deliveries.partitions, clock)
    replay_id = new_id("rpl", 0, clock.now())
    loop = asyncio.get_running_loop()
    began = loop.time()
    oldest = Definition(filter=Filter(), most=number)
    await replays.create(replay_id, backlog.targets[0].tenant, "delivery", oldest)

    async def is_over() -> bool:
        progress = total((await replays.progress(replay_id)).values())
        return progress.delivered >= number

    async def replayed() -> float:
        await around.until(is_over, "the replay is not over", patience=_DRAIN, every=0.1)
        return loop.time() - began

    over = asyncio.create_task(replayed())
    while not over.done():
        # Piece by piece, so that hardly anything is counted that came after the replay.
        await live.run(_PIECE)
    return await over
