"""What a replay does, and what it does to live traffic: P8."""

from __future__ import annotations

import asyncio

from config.clock import StoreClock, SystemClock
from config.ids import new_id
from delivery.letters import Filter
from delivery.replay_store import ReplayStore
from delivery.replays import Definition, total
from tests.bench.backlog import Backlog, body_of
from tests.bench.bench import Bench
from tests.bench.lateness import Schedule, lateness
from tests.bench.report import Figure
from tests.bench.samples import described
from tests.bench.surroundings import sink

_ENDPOINTS = 50
_BODY = 200
_RATE = 100.0
_DRAIN = 240.0


async def p8(bench: Bench) -> Figure:
    """Everything dead of a tenant, replayed at once, while the same endpoints get live traffic."""
    dead, seconds = bench.pick(100_000, 500), bench.pick(10.0, 1.0)
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
            await bench.around.settled()
            bench.progress.at("P8", "live traffic alone", 0.5)
            await to.tell(keep=True)
            await live.run(seconds)
            await backlog.drained(_DRAIN)
            alone = described(await lateness(to))
            bench.progress.at("P8", "live traffic beside a replay", 0.7)
            await to.tell(keep=True)
            rate = await _replay(backlog, live, dead)
            await backlog.drained(_DRAIN)
            beside = described(await lateness(to))
    ratio = beside["p99"] / alone["p99"]
    return Figure(
        name="P8",
        what=f"replay of {dead:,} dead letters; live p99 beside it, against alone",
        target="1,000/s; 2 times it",
        measured=f"{rate:,.0f}/s; {beside['p99']:.1f} ms of {alone['p99']:.1f} ms",
        ratio=ratio,
        ok=rate >= 1_000 and ratio <= 2,
        details={
            "perSecond": round(rate),
            "aloneMilliseconds": alone,
            "besideMilliseconds": beside,
            "livePerSecond": _RATE,
        },
    )


async def _replay(backlog: Backlog, live: Schedule, dead: int) -> float:
    """Replay all that is dead, live traffic beside it; return how many were delivered a second."""
    around = backlog.around
    clock = StoreClock(SystemClock())
    replays = ReplayStore(around.store, backlog.deliveries.partitions, clock)
    replay_id = new_id("rpl", 0, clock.now())
    loop = asyncio.get_running_loop()
    began = loop.time()
    everything = Definition(filter=Filter(), total=dead)
    await replays.create(replay_id, backlog.targets[0].tenant, "delivery", everything)

    async def is_over() -> bool:
        progress = total((await replays.progress(replay_id)).values())
        return progress.delivered >= dead

    async def replayed() -> float:
        await around.until(is_over, "the replay is not over", patience=_DRAIN, every=0.1)
        return loop.time() - began

    over = asyncio.create_task(replayed())
    while not over.done():
        await live.run(1.0)
    return dead / await over
