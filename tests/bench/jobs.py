"""A job type that says when its handler began and returned, by the clock of all processes."""

from __future__ import annotations

import time

from gateway.handlers import JobContext, JobModel, job_type


class BenchInput(JobModel):
    """When it was submitted, in seconds of the monotonic clock."""

    due: float


class BenchResult(JobModel):
    """All three instants."""

    due: float
    began: float
    returned: float


@job_type("bench.note", timeout=60, max_attempts=3, example={"due": 0.0})
def note(job: JobContext, given: BenchInput) -> BenchResult:
    """Note the time twice."""
    began = time.monotonic()
    return BenchResult(due=given.due, began=began, returned=time.monotonic())
