"""Job types that do what jobs should not, and keep a record of every attempt in a file.

The records are what a test counts executions by: a file is appended to before anything else, so
that it also tells of attempts which the gateway never heard the end of.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from dramatiq.worker import ConsumerThread
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from gateway.handlers import Artifact, JobContext, JobError, JobModel, job_type

Moment = Literal["claimed", "progress", "saved", "returned"]
MOMENTS: tuple[Moment, ...] = get_args(Moment)

_PATIENCE = 60.0
_LOOK = 0.01


class CountInput(JobModel):
    """How an attempt goes.

    Attributes:
        record: the file that gets one line for each attempt: job, number, process.
        seconds: how long it takes.
        steps: in how many parts.
        failures: how many attempts fail before one succeeds.
        payload: given back.
    """

    record: str
    seconds: Annotated[float, Field(ge=0, le=600)] = 0.0
    steps: Annotated[int, Field(ge=1, le=1000)] = 1
    failures: Annotated[int, Field(ge=0, le=100)] = 0
    payload: Any = None


class CountResult(JobModel):
    """The payload, and which attempt gave it."""

    payload: Any
    attempt: int


@job_type("faulty.count", timeout=600, max_attempts=3, example={"record": "/tmp/record"})
def count(job: JobContext, given: CountInput) -> CountResult:
    """Count the attempt, take a while, and fail as often as asked."""
    note(given.record, f"{job.id} {job.attempt} {os.getpid()}")
    for step in range(1, given.steps + 1):
        job.sleep(given.seconds / given.steps)
        job.progress(100 * step // given.steps, f"Step {step}")
    if job.attempt <= given.failures:
        raise JobError(f"Attempt {job.attempt} fails.", code="as_planned", retry=True)
    return CountResult(payload=given.payload, attempt=job.attempt)


class DeafInput(JobModel):
    """How long the handler hears nothing."""

    record: str
    seconds: Annotated[float, Field(ge=0, le=600)]


class Nothing(JobModel):
    """No result."""


@job_type("faulty.deaf", timeout=600, max_attempts=1, example={"record": "/tmp/r", "seconds": 1})
def deaf(job: JobContext, given: DeafInput) -> Nothing:
    """Sleep without ever asking whether to stop, as C code does."""
    note(given.record, f"{job.id} {job.attempt} {os.getpid()}")
    time.sleep(given.seconds)
    return Nothing()


class HeldInput(JobModel):
    """What the handler waits for."""

    record: str
    until: str


@job_type("faulty.held", timeout=600, example={"record": "/tmp/r", "until": "/tmp/go-on"})
def held(job: JobContext, given: HeldInput) -> Nothing:
    """Wait for a file, without ever asking whether to stop."""
    note(given.record, f"{job.id} {job.attempt} {os.getpid()}")
    pause = threading.Event()
    for _ in range(round(_PATIENCE / _LOOK)):
        if Path(given.until).exists():
            break
        pause.wait(_LOOK)
    note(given.record, f"returns {job.id}")
    return Nothing()


class BrokenInput(JobModel):
    """Nothing."""


@job_type("faulty.broken", timeout=600, max_attempts=2, example={})
def broken(job: JobContext, given: BrokenInput) -> Nothing:
    """Raise what nobody foresaw."""
    raise ZeroDivisionError(f"attempt {job.attempt} knows a secret")


class StallInput(JobModel):
    """At which moment of its first attempt the handler waits to be killed."""

    record: str
    moment: Moment


class StallResult(JobModel):
    """A result that can hold up its own rendering, which comes after the handler returned."""

    attempt: int
    report: Artifact
    stalls: str = ""

    @model_serializer(mode="wrap")
    def render(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Wait to be killed, if asked, before the result is rendered."""
        if self.stalls:
            _wait_to_be_killed(self.stalls, "returned")
        rendered: dict[str, Any] = handler(self)
        return rendered


@job_type(
    "faulty.stall",
    timeout=600,
    max_attempts=3,
    example={"record": "/tmp/record", "moment": "claimed"},
)
def stall(job: JobContext, given: StallInput) -> StallResult:
    """Say in the record which moment it is, and there wait to be killed."""
    stalls = given.moment if job.attempt == 1 else ""
    note(given.record, f"{job.id} {job.attempt} {os.getpid()}")
    if stalls == "claimed":
        _wait_to_be_killed(given.record, stalls)
    job.progress(50, "Half")
    if stalls == "progress":
        _wait_to_be_killed(given.record, stalls)
    report = job.save("report.txt", f"attempt {job.attempt}".encode(), "text/plain")
    if stalls == "saved":
        _wait_to_be_killed(given.record, stalls)
    last = given.record if stalls == "returned" else ""
    return StallResult(attempt=job.attempt, report=report, stalls=last)


def note(record: str, line: str) -> None:
    """Append a whole line at once, whatever other processes do."""
    descriptor = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def lines(record: Path) -> list[str]:
    """Return what was noted so far."""
    return record.read_text().splitlines() if record.exists() else []


def _wait_to_be_killed(record: str, moment: str) -> None:
    note(record, moment)
    threading.Event().wait(_PATIENCE)


@job_type("faulty.kill_consumer", timeout=600, max_attempts=1, example={"record": "/tmp/record"})
def kill_consumer(job: JobContext, given: CountInput) -> CountResult:
    """End the threads that fetch this process's messages, in a way that Dramatiq does not mend."""
    note(given.record, f"{job.id} {job.attempt} {os.getpid()}")
    for thread in threading.enumerate():
        if isinstance(thread, ConsumerThread) and thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
            )
    return CountResult(payload=given.payload, attempt=job.attempt)
