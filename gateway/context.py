"""The context of a running handler, in the worker's process: progress, sleep, and the deadline."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from config.clock import Clock
from gateway.artifacts import ArtifactStore
from gateway.jobcontext import JobCancelled, JobError
from gateway.jobfiles import JobFiles
from gateway.leases import Held
from gateway.models import Job

MAX_MESSAGE = 500
"""The longest progress message, in characters; longer ones are cut."""

COMPLETE = 100
"""The percentage of a job that is done."""


class RunningJob(JobFiles):
    """A `JobContext` over the real store, used from the handler's thread."""

    def __init__(self, held: Held, artifacts: ArtifactStore, clock: Clock) -> None:
        """Serve the attempt that `held` stands for."""
        super().__init__(held.job.id, held.job.files, lambda: artifacts)
        self._held = held
        self._clock = clock

    @property
    def id(self) -> str:
        """The job's identifier."""
        return self._held.job.id

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self._held.job.attempt

    @property
    def max_attempts(self) -> int:
        """How many attempts the job has in all."""
        return self._held.job.max_attempts

    @property
    def metadata(self) -> Mapping[str, object]:
        """What the client attached to the job."""
        return MappingProxyType(dict(self._held.job.metadata))

    def progress(self, percent: int, message: str) -> None:
        """Tell how far the job is; also the point at which a cancel or the deadline takes effect.

        Costs no round trip: the newest report of all jobs of a process is written ten times a
        second.

        Raises:
            JobCancelled: the job should stop now.
            JobError: its time is up.
        """
        self._check()
        self._held.report(min(max(int(percent), 0), COMPLETE), message[:MAX_MESSAGE])

    def sleep(self, seconds: float) -> None:
        """Wait, and be woken early by a cancel.

        Raises:
            JobCancelled: the job should stop now.
            JobError: its time is up.
        """
        left = self._held.deadline - self._clock.monotonic()
        self._held.stop.wait(max(0.0, min(seconds, left)))
        self._check()

    def _check(self) -> None:
        if self._held.stop.is_set():
            raise JobCancelled
        if self._clock.monotonic() > self._held.deadline:
            raise time_is_up(self._held.job)


def time_is_up(job: Job) -> JobError:
    """Return what an attempt ends with that took longer than it may."""
    return JobError(
        f"The job took longer than its limit of {job.timeout:g} seconds.",
        code="timeout",
        retry=True,
    )


def memory_is_used_up(limit: int, *, by_abort: bool = False) -> JobError:
    """Return what an attempt ends with that wanted more memory than it may have.

    Another attempt would want as much.

    Args:
        limit: bytes.
        by_abort: nothing tells of it but an abort under the limit: what C code does that gets none.
    """
    bound = f"its limit of {limit / 1024**2:g} MiB"
    sentence = f"The job needed more memory than {bound}."
    if by_abort:
        sentence = f"The job's process aborted; it may have needed more memory than {bound}."
    return JobError(sentence, code="memory_limit")
