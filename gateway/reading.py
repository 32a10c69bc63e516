"""Finding a job for somebody who may see it, and telling them when it is not to be had."""

from __future__ import annotations

import json
from typing import Any

from config import ids
from config.clock import rfc3339
from gateway.artifacts import ArtifactStore
from gateway.models import Tombstone, View
from gateway.problems import Problem
from gateway.store import JobStore


async def read_job(jobs: JobStore, job_id: str, *, tenant: str | None, partitions: int) -> View:
    """Return the job if it exists and is `tenant`'s; None stands for a reader bound to this job.

    Raises:
        Problem: `not_found`, also for another tenant's job, or `job_expired`.
        StoreUnavailable: the store did not answer.
    """
    if not ids.is_id("job", job_id) or ids.partition_of(job_id) >= partitions:
        raise _unknown()
    match await jobs.read(job_id):
        case View() as view if tenant in {None, view.job.tenant}:
            return view
        case Tombstone() as stone if tenant in {None, stone.tenant}:
            raise _expired(stone)
        case _:
            raise _unknown()


async def read_file_results(view: View, artifacts: ArtifactStore) -> Any:
    """Return the results that are kept as a file; None when they are not.

    Raises:
        ArtifactError: they cannot be read.
    """
    kept = view.job.results_file
    if kept is None:
        return None
    return json.loads(await artifacts.read(kept.path, kept.size))


def _unknown() -> Problem:
    return Problem("not_found", "no job of this identifier is known")


def _expired(stone: Tombstone) -> Problem:
    return Problem(
        "job_expired",
        f"the job expired at {rfc3339(stone.expired_at)}",
        members={
            "jobId": stone.job_id,
            "jobStatus": stone.status,
            "expiredAt": rfc3339(stone.expired_at),
        },
    )
