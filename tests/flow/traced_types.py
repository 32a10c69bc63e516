"""Job types that say which trace OpenTelemetry takes for current while they run."""

from __future__ import annotations

import asyncio
import threading

from opentelemetry import propagate

from gateway.handlers import JobContext, JobError, JobModel, job_type
from tests.processes import PATIENCE


class Nothing(JobModel):
    """No input."""


class FailingInput(JobModel):
    """How many attempts fail before one succeeds."""

    failures: int


class Told(JobModel):
    """What a handler would tell whom it calls."""

    headers: dict[str, str]


def _told() -> Told:
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return Told(headers=headers)


@job_type("traced.thread", timeout=60, example={})
def in_thread(job: JobContext, given: Nothing) -> Told:
    """Tell, from the worker's thread."""
    return _told()


@job_type("traced.async", timeout=60, example={})
async def asynchronous(job: JobContext, given: Nothing) -> Told:
    """Tell, from a task of a loop."""
    return await asyncio.create_task(_later())


async def _later() -> Told:
    await asyncio.sleep(0)
    return _told()


@job_type("traced.process", timeout=60, isolation="process", example={})
def in_process(job: JobContext, given: Nothing) -> Told:
    """Tell, from a process of its own."""
    return _told()


@job_type("traced.deaf", timeout=1, max_attempts=1, example={})
def deaf(job: JobContext, given: Nothing) -> Told:
    """Hear of no limit."""
    threading.Event().wait(PATIENCE)
    return _told()


@job_type("traced.failing", timeout=60, max_attempts=3, example={"failures": 1})
def failing(job: JobContext, given: FailingInput) -> Told:
    """Fail for a while, then tell."""
    if job.attempt <= given.failures:
        raise JobError("It is not ready.", code="not_ready", retry=True)
    return _told()
