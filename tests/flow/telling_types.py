"""Job types that write lines of their own to the log, as a handler's libraries do."""

from __future__ import annotations

import asyncio
import logging

from gateway.handlers import JobContext, JobModel, job_type

_log = logging.getLogger("acme.billing")


class TellInput(JobModel):
    """What to write."""

    line: str


class Nothing(JobModel):
    """No results."""


@job_type("telling.thread", timeout=60, example={"line": "billed"})
def in_thread(job: JobContext, given: TellInput) -> Nothing:
    """Write from the worker's thread."""
    _log.info(given.line)
    return Nothing()


@job_type("telling.async", timeout=60, example={"line": "billed"})
async def asynchronous(job: JobContext, given: TellInput) -> Nothing:
    """Write from a task of a loop."""
    await asyncio.create_task(_later(given.line))
    return Nothing()


async def _later(line: str) -> None:
    _log.info(line)


@job_type("telling.process", timeout=60, isolation="process", example={"line": "billed"})
def in_process(job: JobContext, given: TellInput) -> Nothing:
    """Write from a process of its own."""
    _log.info(given.line)
    return Nothing()
