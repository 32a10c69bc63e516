"""Finding a job or an endpoint for whoever may see it, and telling them when it is not there."""

from __future__ import annotations

import json
from typing import Any

from config import ids
from config.clock import rfc3339
from delivery.endpoints import Endpoint
from delivery.store import DeliveryStore
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


async def read_endpoint(deliveries: DeliveryStore, endpoint_id: str, *, tenant: str) -> Endpoint:
    """Return the endpoint if it exists and is `tenant`'s; for a mirror's, the one that it is like.

    Raises:
        Problem: `not_found`, also for another tenant's endpoint.
        StoreUnavailable: the store did not answer.
    """
    endpoint = None
    if ids.is_id("ep", endpoint_id) and ids.partition_of(endpoint_id) < deliveries.partitions:
        endpoint = await deliveries.read_endpoint(endpoint_id)
    if endpoint is None or endpoint.tenant != tenant:
        raise unknown_endpoint()
    if endpoint.mirror_of is not None:
        return await read_endpoint(deliveries, endpoint.mirror_of, tenant=tenant)
    return endpoint


def unknown_endpoint() -> Problem:
    """Return what is answered for an endpoint that the asker has not got."""
    return Problem("not_found", "no endpoint of this identifier is known")


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
