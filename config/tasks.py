"""Tasks that run beside the main one: ended for certain, and never in silence."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

_log = logging.getLogger("config.tasks")

_AGAIN_SECONDS = 1.0


def background(
    loops: Iterable[Coroutine[Any, Any, None]], on_fault: Callable[[], None]
) -> list[asyncio.Task[None]]:
    """Start loops that are meant to run for ever; one that ends by a fault calls `on_fault`.

    A process without one of its loops would live on and do half its work: whoever started it can
    start it anew.
    """

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.critical("process.loop_failed", exc_info=error)
            on_fault()

    tasks = [asyncio.create_task(loop) for loop in loops]
    for task in tasks:
        task.add_done_callback(ended)
    return tasks


async def cancel_all(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel `tasks` and return when all of them have ended.

    A cancel that meets a connection being made can be swallowed, so it is repeated.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN_SECONDS)
