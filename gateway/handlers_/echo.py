"""`demo.echo`: gives back what it was given, as slowly and as unsuccessfully as asked."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue

from gateway.handlers import JobContext, JobError, JobModel, job_type

_MAX_SECONDS = 3600.0
_MAX_STEPS = 1000


class EchoInput(JobModel):
    """What to give back, and how.

    Attributes:
        payload: any JSON.
        seconds: how long to take in all.
        steps: in how many equal parts, each ending with a progress report; 0 waits in one.
        fail: when given, the job fails with this sentence at the end of its time.
    """

    payload: JsonValue
    seconds: Annotated[float, Field(strict=True, ge=0, le=_MAX_SECONDS)] = 0.0
    steps: Annotated[int, Field(strict=True, ge=0, le=_MAX_STEPS)] = 0
    fail: Annotated[str, Field(strict=True, min_length=1, max_length=1000)] | None = None


class EchoResult(JobModel):
    """The payload, as it came."""

    payload: JsonValue


@job_type(
    "demo.echo",
    timeout=2 * _MAX_SECONDS,
    max_attempts=3,
    example={"payload": {"hello": "world"}, "seconds": 2, "steps": 4},
    profiles={"development"},
)
def echo(job: JobContext, given: EchoInput) -> EchoResult:
    """Give back the payload, after a while if asked, or fail as asked."""
    steps = max(given.steps, 1 if given.seconds else 0)
    for step in range(1, steps + 1):
        job.sleep(given.seconds / steps)
        job.progress(100 * step // steps, f"Step {step} of {steps}")
    if given.fail is not None:
        raise JobError(given.fail, retry=False)
    return EchoResult(payload=given.payload)
