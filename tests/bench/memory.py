"""What the store takes for what it keeps, stage by stage: M1 and M2; and what that allows: M3."""

from __future__ import annotations

import signal
from dataclasses import asdict, dataclass, replace
from typing import cast

from config.clock import SECOND, StoreClock, SystemClock
from delivery.configure import delivery_store
from delivery.store import DeliveryStore
from gateway.store import JobStore
from tests.bench.backlog import Backlog, body_of
from tests.bench.bench import Bench
from tests.bench.gateway import api_alone, workers
from tests.bench.report import Figure
from tests.bench.surroundings import Surroundings, sink

_ENDPOINTS = 50
_BODY = 500
_FEW = 20
_DRAIN = 300.0
_AT_ONCE = 500
_GIB = 2**30
_TOMBSTONE_LIFE = 7 * 86_400 * SECOND
_PENDING_ALLOWED = 700


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """Bytes for one job with a callback URL and a small result, its callback not among them."""

    pending: float
    ended: float
    tombstone: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """Bytes for one callback, beyond its body."""

    pending: float
    delivered: float
    packed: float
    dead: float


async def m1(bench: Bench) -> Figure:
    """A job: while it waits, once it has ended, and once it has expired."""
    jobs = await _jobs(bench, "M1")
    return Figure(
        name="M1",
        what="bytes of a job: pending, ended, as a tombstone",
        target="a tombstone at most a fifth",
        measured=f"{jobs.pending:.0f}, {jobs.ended:.0f}, {jobs.tombstone:.0f}",
        ratio=jobs.tombstone / jobs.ended,
        ok=jobs.tombstone / jobs.ended <= 0.2,
        details={"bytes": asdict(jobs)},
    )


async def m2(bench: Bench) -> Figure:
    """A callback: pending, delivered, packed when it can be sent no more; and a dead one."""
    each = await _callbacks(bench, "M2")
    return Figure(
        name="M2",
        what="bytes of a callback beyond its body: pending, delivered, packed (has none), dead",
        target=f"pending {_PENDING_ALLOWED}; packed two thirds of delivered",
        measured=f"{each.pending:.0f}, {each.delivered:.0f}, {each.packed:.0f}, {each.dead:.0f}",
        ratio=each.packed / each.delivered,
        ok=each.pending <= _PENDING_ALLOWED and each.packed / each.delivered <= 2 / 3,
        details={"bytes": asdict(each), "body": _BODY},
    )


async def m3(bench: Bench) -> Figure:
    """Jobs a second, each with a callback, that a GiB holds for as long as settings keep all."""
    jobs, each = await _jobs(bench, "M3"), await _callbacks(bench, "M3")
    kept, delivery = bench.around.settings().jobs, bench.around.settings().delivery
    window, retention = delivery.redelivery_seconds, delivery.delivered_retention_seconds
    parts = {
        "jobs": jobs.ended * kept.result_ttl_seconds,
        "tombstones": jobs.tombstone * kept.tombstone_seconds,
        "delivered": (each.delivered + _BODY) * window,
        "packed": each.packed * (retention - window),
    }
    whole = sum(parts.values())
    unpacked = whole - parts["packed"] + (each.delivered + _BODY) * (retention - window)
    return Figure(
        name="M3",
        what="jobs/s that a GiB sustains, against keeping callbacks whole",
        target="more",
        measured=f"{_GIB / whole:.2f}/s of {_GIB / unpacked:.2f}/s",
        ratio=unpacked / whole,
        ok=whole < unpacked,
        details={
            "perSecond": round(_GIB / whole, 3),
            "wholePerSecond": round(_GIB / unpacked, 3),
            "mebibytesForEachPerSecond": {
                name: round(part / 2**20, 1) for name, part in parts.items()
            },
        },
    )


async def _callbacks(bench: Bench, name: str) -> Callbacks:
    many, around = bench.pick(20_000, 500), bench.around
    body = body_of(_BODY)
    async with sink(_ENDPOINTS) as to:
        await around.empty()
        backlog = await Backlog.to(around, to.places)
        # One attempt is all there is.
        with around.delivery(GATEWAY_DELIVERY_GAPS_SECONDS="[0]") as process:
            await backlog.add(_ENDPOINTS, body)
            await backlog.drained(_DRAIN)
            await _retire(around, backlog.deliveries)
            process.send_signal(signal.SIGSTOP)
            nothing = await around.kept_bytes()

            async def beyond(before: float) -> float:
                return (await around.kept_bytes() - before) / many

            bench.progress.at(name, f"{many:,} callbacks wait", 0.4)
            await backlog.add(many, body)
            pending = await beyond(nothing) - _BODY
            bench.progress.at(name, "they are delivered", 0.5)
            process.send_signal(signal.SIGCONT)
            await backlog.drained(_DRAIN)
            delivered = await beyond(nothing) - _BODY
            bench.progress.at(name, "they are packed", 0.7)
            process.send_signal(signal.SIGSTOP)
            await _retire(around, backlog.deliveries, redelivery=0)
            packed = await beyond(nothing)
            process.send_signal(signal.SIGCONT)
            bench.progress.at(name, "others die", 0.8)
            await to.tell(fail=list(to.places))
            before = await around.kept_bytes()
            await backlog.add(many, body)
            await backlog.drained(_DRAIN)
            dead = await beyond(before) - _BODY
    return Callbacks(pending=pending, delivered=delivered, packed=packed, dead=dead)


async def _jobs(bench: Bench, name: str) -> Jobs:
    many, around = bench.pick(5_000, 100), bench.around
    deliveries = delivery_store(around.settings(), around.store)
    jobs = JobStore(
        around.store, deliveries.partitions, StoreClock(SystemClock()), deliveries.retention
    )
    async with sink(1) as to:
        await around.empty()
        url = f"http://{to.places[0]}/hook"
        async with api_alone(around) as api:

            async def all_called_back() -> bool:
                return await to.count() >= made

            async def run() -> None:
                with workers(around):
                    await around.until(all_called_back, "jobs still run", patience=_DRAIN)
                # Their callbacks are measured for themselves.
                await _retire(around, deliveries, delivered_count=0, ends=0)

            async def expire() -> None:
                async for found in around.store.client.scan_iter("gw:{p00}:j:job_*", count=1_000):
                    job_id = found.decode().rpartition(":")[2]
                    await jobs.erase(job_id, tombstone_life=_TOMBSTONE_LIFE)

            # Once with few: the store keeps the scripts too.
            made = _FEW
            await api.submit_many(made, url)
            await run()
            await expire()
            nothing = await around.kept_bytes()

            async def each() -> float:
                return (await around.kept_bytes() - nothing) / many

            bench.progress.at(name, f"{many:,} jobs wait", 0.05)
            made += many
            await api.submit_many(many, url)
            pending = await each()
            bench.progress.at(name, "they are run", 0.1)
            await run()
            ended = await each()
            bench.progress.at(name, "they expire", 0.3)
            await expire()
            tombstone = await each()
    return Jobs(pending=pending, ended=ended, tombstone=tombstone)


async def _retire(around: Surroundings, deliveries: DeliveryStore, **bounds: int) -> None:
    """Do at once, under other bounds, what delivery processes do as it becomes due."""
    look = "gw:{p00}:shelf:look"
    for shelf in await around.store.client.zrange(look, 0, -1):
        await around.store.client.zadd(look, {cast("bytes", shelf): 0})
    kept = replace(deliveries.retention, **bounds)
    retirer = DeliveryStore(around.store, deliveries.partitions, kept)
    while any(each.more for each in (await retirer.retire(_AT_ONCE)).values()):
        pass
