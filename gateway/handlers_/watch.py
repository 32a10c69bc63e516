"""Waiting for a coroutine in a handler's thread, with an eye on the job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from gateway.handlers import JobContext

_LOOK_SECONDS = 0.1
_LOOKS_PER_REPORT = 10

T = TypeVar("T")


def run_watched(job: JobContext, work: Coroutine[Any, Any, T], report: Callable[[], object]) -> T:
    """Run `work` on an event loop of its own and return its result; cancel it when the job stops.

    Args:
        job: looked at ten times a second, for a stop that this process knows of.
        work: what is waited for.
        report: called once a second, to report progress and so hear of a stop from the store.

    Raises:
        JobCancelled: the job should stop; so does whatever else `job` or `report` raises.
    """
    return asyncio.run(_watched(job, work, report))


async def _watched(
    job: JobContext, work: Coroutine[Any, Any, T], report: Callable[[], object]
) -> T:
    task = asyncio.create_task(work)
    looks = 0
    try:
        while True:
            done, _ = await asyncio.wait({task}, timeout=_LOOK_SECONDS)
            if done:
                return task.result()
            looks += 1
            job.sleep(0)
            if looks % _LOOKS_PER_REPORT == 0:
                report()
    finally:
        # A no-op when it is done; otherwise its connection is closed before the handler goes on.
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
