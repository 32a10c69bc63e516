"""Cancelling while something else happens to the job: the store decides, and nothing is lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx
import pytest

from config.clock import SECOND
from config.ids import new_id
from gateway.callbacks import Renderer
from gateway.cancelling import Canceller
from gateway.models import View
from gateway.services import Services
from gateway.urls import Urls
from gateway.work import End, EndResult, WorkStore
from tests.gateway.jobs import finish, submit

Meanwhile = Callable[[Services, str], Awaitable[object]]


class Interrupted(WorkStore):
    """The real store, where something happens once before an end is written."""

    def interrupt(self, meanwhile: Callable[[], Awaitable[object]]) -> None:
        """Let `meanwhile` happen."""
        self._meanwhile = [meanwhile]

    async def finish(self, job_id: str, end: End) -> EndResult:
        """Let happen what is to happen, then write the end."""
        while self._meanwhile:
            await self._meanwhile.pop()()
        return await super().finish(job_id, end)


def canceller(services: Services, work: WorkStore) -> Canceller:
    """Return what cancels jobs."""
    renderer = Renderer(urls=Urls("https://gateway.example"), ring=services.ring)
    return Canceller(jobs=services.jobs, work=work, renderer=renderer, clock=services.clock)


async def claimed(services: Services, job_id: str) -> None:
    """A worker takes the job."""
    assert await services.work.claim(job_id, "claim", lease=30 * SECOND) is not None


async def claimed_and_waiting_again(services: Services, job_id: str) -> None:
    """A worker takes the job and its attempt fails."""
    await claimed(services, job_id)
    await services.work.retry(job_id, "claim", delay=3600 * SECOND, attempt_record="{}")


async def completed(services: Services, job_id: str) -> None:
    """The job is done."""
    await finish(services, job_id, results={})


async def cancelled(services: Services, job_id: str) -> None:
    """Somebody else cancels it."""
    assert await canceller(services, services.work).cancel(job_id) is not None


@pytest.mark.parametrize(
    ("meanwhile", "state", "status"),
    [
        (claimed, "requested", "processing"),
        (claimed_and_waiting_again, "cancelled", "cancelled"),
        (completed, "ended", "completed"),
        (cancelled, "cancelled", "cancelled"),
    ],
)
async def test_races(
    client: httpx.AsyncClient,
    services: Services,
    meanwhile: Meanwhile,
    state: str,
    status: str,
) -> None:
    job_id = await submit(client, callbackUrl="http://127.0.0.1:9/hook")
    settings = services.settings
    work = Interrupted(
        services.store, settings.store.partitions, services.clock, services.deliveries.retention
    )
    work.interrupt(lambda: meanwhile(services, job_id))
    said = await canceller(services, work).cancel(job_id)
    assert said is not None
    assert (said.state, said.view.job.status) == (state, status)
    kept = await services.jobs.read(job_id)
    assert isinstance(kept, View)
    assert kept.job.rev == said.view.job.rev
    assert kept.job.cancel_requested is (state == "requested")


async def test_no_such_job(services: Services) -> None:
    job_id = new_id("job", 0, services.clock.now())
    assert await canceller(services, services.work).cancel(job_id) is None
