"""Dead letters among jobs: failed, and not run again. Walked through in order, and run again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from delivery.deadletters import PAGE, Place, walk_merged
from gateway.models import View
from gateway.problems import Problem
from gateway.rerun import Rerunner
from gateway.store import JobStore


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAgain:
    """What became of jobs that were to be run again.

    Attributes:
        jobs: the new job of each that was run again now.
        skipped: why the others were not.
    """

    jobs: dict[str, str]
    skipped: dict[str, str]


async def walk(jobs: JobStore) -> AsyncIterator[View]:
    """Yield every failed job that was not run again, oldest end first; in bounded memory."""

    async def read(partition: int, after: Place) -> list[View]:
        return await jobs.list_failed(partition, after=after, limit=PAGE)

    async for view in walk_merged(read, jobs.partitions, _place):
        yield view


def _place(view: View) -> Place:
    return view.job.completed_at or 0, view.job.id


async def run_again(rerunner: Rerunner, job_ids: Iterable[str]) -> RunAgain:
    """Run jobs again as new ones, whoever's they are; those that were before stay so.

    Raises:
        StoreUnavailable, StoreFull, ArtifactError: those before the one at fault are done; calling
            again with the same jobs does the rest.
    """
    jobs: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for job_id in dict.fromkeys(job_ids):
        try:
            rerun = await rerunner.run_again(job_id, tenant=None)
        except Problem as problem:
            skipped[job_id] = problem.detail
            continue
        if rerun.is_new:
            jobs[job_id] = rerun.view.job.id
        else:
            skipped[job_id] = f"it runs again as {rerun.view.job.id} already"
    return RunAgain(jobs=jobs, skipped=skipped)
