"""What a long list costs: J1, pages of a million jobs against those of a thousand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from statistics import median

from config.clock import SECOND, StoreClock, SystemClock
from config.ids import new_id
from delivery.configure import delivery_store
from gateway.listing import Query
from gateway.models import Job
from gateway.store import JobStore
from tests.bench.bench import Bench
from tests.bench.report import Figure
from tests.bench.samples import described
from tests.bench.surroundings import Surroundings, surroundings

_TENANT = "bench"
_FEW = 1_000
_AT_ONCE = 500
_P99_ALLOWED = 25.0
"""Milliseconds: a page is to be no slower than a submission, see P4."""

_PAGES = {
    "newest": Query(limit=20),
    "nothingOfType": Query(limit=20, type="no.such"),
    "nothingOfStatus": Query(limit=20, status="failed"),
}


async def j1(bench: Bench) -> Figure:
    """The newest page, and pages of filters that nothing passes: the longest look there is."""
    many, rounds = bench.pick(1_000_000, 5_000), bench.pick(400, 20)
    async with surroundings() as other:
        few, much = _jobs(other), _jobs(bench.around)
        await _fill(few, _FEW, lambda _done: None)
        await _fill(much, many, lambda done: bench.progress.at("J1", f"{many:,} jobs", 0.9 * done))
        spent: dict[str, dict[str, list[float]]] = {
            name: {"few": [], "many": []} for name in _PAGES
        }
        for _ in range(rounds):
            for name, query in _PAGES.items():
                spent[name]["few"].append(await _page(few, query))
                spent[name]["many"].append(await _page(much, query))
    worst = max(_ratio(each["few"], each["many"]) for each in spent.values())
    slowest = max((described(each["many"]) for each in spent.values()), key=lambda it: it["p99"])
    return Figure(
        name="J1",
        what=f"a page of {many:,} jobs, against one of {_FEW:,}",
        target=f"p99 {_P99_ALLOWED:g} ms",
        measured=f"p50 {slowest['p50']:.1f} ms, p99 {slowest['p99']:.1f} ms",
        ratio=worst,
        ok=slowest["p99"] <= _P99_ALLOWED,
        details={
            "jobs": many,
            "milliseconds": {
                name: {side: described(values) for side, values in each.items()}
                for name, each in spent.items()
            },
        },
    )


def _ratio(few: Sequence[float], many: Sequence[float]) -> float:
    return median(many) / median(few)


def _jobs(around: Surroundings) -> JobStore:
    deliveries = delivery_store(around.settings(), around.store)
    return JobStore(
        around.store, deliveries.partitions, StoreClock(SystemClock()), deliveries.retention
    )


async def _fill(jobs: JobStore, many: int, tell: Callable[[float], None]) -> None:
    """Keep so many jobs, each made a millisecond after the one before."""
    first = SystemClock().now() - many * (SECOND // 1_000)
    for start in range(0, many, _AT_ONCE):
        numbers = range(start, min(many, start + _AT_ONCE))
        await asyncio.gather(*(_submit(jobs, number, first) for number in numbers))
        tell(numbers.stop / many)


async def _submit(jobs: JobStore, number: int, first: int) -> None:
    made = first + number * (SECOND // 1_000)
    await jobs.submit(
        Job(
            id=new_id("job", number % jobs.partitions, made),
            tenant=_TENANT,
            type="demo.echo",
            status="pending",
            rev=1,
            created_at=made,
            result_ttl=3_600 * SECOND,
        ),
        None,
    )


async def _page(jobs: JobStore, query: Query) -> float:
    """Return the milliseconds that a page takes."""
    began = time.perf_counter()
    await jobs.list_jobs(_TENANT, query)
    return 1_000 * (time.perf_counter() - began)
