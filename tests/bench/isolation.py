"""What one bad receiver does to the others: P7; and what a thousand attempts at once take: P9."""

from __future__ import annotations

from tests.bench.backlog import Backlog, Target, body_of
from tests.bench.bench import Bench
from tests.bench.lateness import Schedule, lateness
from tests.bench.report import Figure
from tests.bench.samples import described, ratios
from tests.bench.surroundings import SinkHandle, sink
from tests.processes import peak_bytes, resident_bytes

_HEALTHY = 49
_BODY = 500
_DRAIN = 120.0
_RATE = 300.0
_AT_ONCE = 1_000
_MEBIBYTES_ALLOWED = 150


async def p7(bench: Bench) -> Figure:
    """How late callbacks arrive while one endpoint hangs, against without it."""
    queued, seconds, rounds = bench.pick(50_000, 500), bench.pick(8.0, 1.0), bench.pick(5, 1)
    calm: list[list[float]] = []
    troubled: list[list[float]] = []
    async with sink(_HEALTHY + 1) as to:
        for number in range(rounds):
            bench.progress.at("P7", f"round {number + 1} of {rounds}", number / rounds)
            await bench.around.empty()
            backlog = await Backlog.to(bench.around, to.places)
            *healthy, hanging = backlog.targets
            with bench.around.delivery():
                # The worst of its kind: one that was good, and so may have many attempts at once.
                await backlog.add(bench.pick(100, 10) * (_HEALTHY + 1), body_of(_BODY))
                await backlog.drained(_DRAIN)
                await bench.around.settled()
                calm.append(await _late(backlog, healthy, to, seconds))
                await to.tell(hold=[to.places[-1]])
                await backlog.add(queued, body_of(_BODY), [hanging])
                await bench.around.settled()
                troubled.append(await _late(backlog, healthy, to, seconds))
                await to.tell(hold=[])
    without, with_it = ([described(each)["p99"] for each in lists] for lists in (calm, troubled))
    ratio = ratios(with_it, without)
    return Figure(
        name="P7",
        what=f"p99 of healthy endpoints while one hangs with {queued:,} queued",
        target="1.5 times that without",
        measured=f"{_middle(with_it):.1f} ms of {_middle(without):.1f} ms",
        ratio=ratio,
        ok=ratio <= 1.5,
        details={
            "withoutMilliseconds": [described(each) for each in calm],
            "withMilliseconds": [described(each) for each in troubled],
            "perSecond": _RATE,
        },
    )


def _middle(values: list[float]) -> float:
    return described(values)["p50"]


async def _late(
    backlog: Backlog, targets: list[Target], to: SinkHandle, seconds: float
) -> list[float]:
    await to.tell(keep=True)
    await Schedule(backlog, targets, _RATE).run(seconds)
    await backlog.drained(_DRAIN, targets)
    return await lateness(to)


async def p9(bench: Bench) -> Figure:
    """Memory of a delivery process with so many attempts under way."""
    at_once = bench.pick(_AT_ONCE, 100)
    endpoints = 2 * _HEALTHY
    variables = {
        "GATEWAY_DELIVERY_CONCURRENCY": str(at_once),
        "GATEWAY_DELIVERY_ENDPOINT_LIMIT_INITIAL": "64",
    }
    async with sink(endpoints) as to:
        await bench.around.empty()
        bench.progress.at("P9", f"{at_once} attempts", 0.0)
        backlog = await Backlog.to(bench.around, to.places)
        with bench.around.delivery(**variables) as process:
            await backlog.add(bench.pick(100, 4) * endpoints, body_of(_BODY))
            await backlog.drained(_DRAIN)
            idle = resident_bytes(process.pid)
            await to.tell(hold=list(to.places))
            await backlog.add(2 * at_once, body_of(_BODY))

            async def all_under_way() -> bool:
                return bool((await to.tell(look=True))["held"] >= at_once)

            await bench.around.until(all_under_way, "not as many attempts under way", every=0.01)
            await to.tell(hold=[])
            await backlog.drained(_DRAIN)
            held = peak_bytes(process.pid)
    mebibytes = held / 2**20
    return Figure(
        name="P9",
        what=f"memory of a delivery process at {at_once:,} attempts at once",
        target=f"{_MEBIBYTES_ALLOWED} MiB",
        measured=f"{mebibytes:.0f} MiB",
        ok=mebibytes <= _MEBIBYTES_ALLOWED,
        details={"bytes": held, "idleBytes": idle, "atOnce": at_once},
    )
