"""Waiting for a job over HTTP: what its watchers see, and holding an answer back until it holds.

All of them wait at one set of `Watchers`, so waiting asks the store for nothing, and a state of a
job is rendered once however many are sent it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Never, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope

from config.errors import StoreError
from config.tasks import cancel_all
from gateway.answers import Answers
from gateway.models import Job, Tombstone, View, compact
from gateway.services import Services
from gateway.store import JobStore
from gateway.urls import Urls
from gateway.watching import Watchers

log = logging.getLogger("api")

ABORT = "gateway.abort"
"""The ASGI extension that cuts the connection without waiting for what was written to it: ending
in order would wait for ever for a client that reads nothing."""

T = TypeVar("T")


class Sight:
    """A job at one revision, as everyone who watches it sees it.

    Attributes:
        view: None once the job is no more.
    """

    def __init__(self, view: View | None, answers: Answers) -> None:
        self.view = view
        self._answers = answers
        self._rendering = asyncio.Lock()
        self._document: bytes | None = None

    def is_at(self, rev: int) -> bool:
        """Whether this is the revision `rev`, or a later one, or the end of all."""
        return self.view is None or self.view.job.rev >= rev

    async def document(self, view: View) -> bytes:
        """Return the document of `view`, which is the one seen, as JSON; rendered once.

        Raises:
            ArtifactError: its results cannot be read.
        """
        async with self._rendering:
            if self._document is None:
                self._document = compact(await self._answers.document(view)).encode()
            return self._document


JobWatchers = Watchers[Sight]


def job_watchers(services: Services, urls: Urls) -> JobWatchers:
    """Return the watchers of a process; the caller's to run and to close."""
    answers = Answers(services=services, urls=urls)

    async def read(job_id: str) -> Sight:
        match await services.jobs.read(job_id):
            case View() as view:
                return Sight(view, answers)
            case Tombstone() | None:
                return Sight(None, answers)

    return Watchers(services.store, read, services.settings.api.max_watchers)


async def hold(
    watchers: JobWatchers,
    request: Request,
    view: View,
    *,
    seconds: int,
    holds: Callable[[View], bool],
) -> View | None:
    """Return the job once it `holds`, or as it stands after `seconds`; None once it is no more.

    Args:
        watchers: of this process.
        request: whose client must stay connected.
        view: the job as it was read last; nothing older is returned.
        seconds: to wait at the most.
        holds: what is waited for.

    Raises:
        Problem: `too_many_watchers`.
        ClientDisconnect: nobody waits any more.
    """
    if seconds == 0 or holds(view):
        return view

    def enough(sight: Sight) -> bool:
        return sight.is_at(view.job.rev) and (sight.view is None or holds(sight.view))

    async with watchers.watch(view.job.id) as watch:
        sight = await while_connected(watch.until(enough, seconds), hung_up(request.receive))
    return sight.view if sight is not None and sight.is_at(view.job.rev) else view


async def is_allowed(may_go_on: Callable[[], Awaitable[bool]]) -> bool:
    """Tell whether a watcher may be told more; one whom nobody can vouch for may not."""
    try:
        return await may_go_on()
    except StoreError as error:
        # It may come back and be let in then.
        log.warning("stream.not_vouched_for", extra={"error": str(error)})
        return False


async def note_reading(jobs: JobStore, job: Job) -> None:
    """Note that the results of `job`, if it has any, went out."""
    if job.status != "completed" or job.read_at is not None:
        return
    try:
        await jobs.mark_read(job.id)
    except StoreError as error:
        # The next reading says it again; at worst somebody is told of results they have.
        log.warning("job.reading_not_noted", extra={"job": job.id, "error": str(error)})


async def while_connected(work: Coroutine[Any, Any, T], listen: Coroutine[Any, Any, T]) -> T:
    """Return what `work` does, or what `listen` does when that is first; the other is cancelled.

    Raises:
        ClientDisconnect: `listen` did, because the client has gone.
    """
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(each) for each in (work, listen)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        result: T = next(task for task in tasks if task.done()).result()
        return result
    finally:
        await cancel_all(tasks)
        await asyncio.gather(*tasks, return_exceptions=True)


async def hung_up(receive: Receive) -> Never:
    """Raise ClientDisconnect when the client has gone, or its answer is complete."""
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientDisconnect


def abort(scope: Scope, job: Job) -> None:
    """Cut the connection of a client that reads too slowly."""
    log.warning("stream.slow_reader_dropped", extra={"job": job.id})
    cut = scope.get("extensions", {}).get(ABORT)
    if cut is not None:
        cut()
