"""Job types that call where nothing may be called: an address that no policy allows."""

from __future__ import annotations

import asyncio

from delivery.deadlines import Deadlines
from delivery.egress import Policy
from delivery.errors import DestinationDenied
from delivery.fetch import Guarded, Request, fetch
from gateway.handlers import JobContext, JobError, JobModel, job_type


class CallInput(JobModel):
    """Where to: an address that is dialled without a look-up."""

    address: str = "10.0.0.1"


class CallResult(JobModel):
    """The status of the answer."""

    status: int


def call(_job: JobContext, given: CallInput) -> CallResult:
    """Call the address, as `http.request` and `video.transcode` do."""
    exchange = fetch(
        Request(method="GET", url=f"http://{given.address}/", headers={}),
        bytes,
        limit=1_000,
        reach=Guarded(policy=Policy()),
        deadlines=Deadlines(),
    )
    try:
        return CallResult(status=asyncio.run(exchange).status)
    except DestinationDenied as error:
        raise JobError("Not allowed.", code="destination_not_allowed") from error


@job_type("calling.here", timeout=60, example={})
def here(job: JobContext, given: CallInput) -> CallResult:
    """Call in the worker's process."""
    return call(job, given)


@job_type("calling.apart", timeout=60, isolation="process", example={})
def apart(job: JobContext, given: CallInput) -> CallResult:
    """Call in a process of its own."""
    return call(job, given)
