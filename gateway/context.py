"""The context of a running handler: progress, files and artifacts of one attempt."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from types import MappingProxyType
from typing import BinaryIO

from config.clock import Clock
from gateway.artifacts import ArtifactStore, output_path
from gateway.handlers import (
    Artifact,
    FileInfo,
    FileRef,
    JobCancelled,
    JobError,
    artifact_uri,
)
from gateway.leases import Held
from gateway.models import Job, StoredFile

MAX_ARTIFACT = 16 * 1024**3
"""The largest artifact, in bytes."""

MAX_ARTIFACTS = 1_000
"""How many artifacts one job may save."""

MAX_MESSAGE = 500
"""The longest progress message, in characters; longer ones are cut."""

_COMPLETE = 100


class RunningJob:
    """A `JobContext` over the real store, used from the handler's thread."""

    def __init__(self, held: Held, artifacts: ArtifactStore, clock: Clock) -> None:
        """Serve the attempt that `held` stands for."""
        self._held = held
        self._artifacts = artifacts
        self._clock = clock
        self._saved: dict[str, StoredFile] = {}
        self._open = ExitStack()

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

    @property
    def saved(self) -> Mapping[str, StoredFile]:
        """The artifacts kept so far, by name."""
        return self._saved

    def progress(self, percent: int, message: str) -> None:
        """Tell how far the job is; also the point at which a cancel or the deadline takes effect.

        Costs no round trip: the newest report of all jobs of a process is written ten times a
        second.

        Raises:
            JobCancelled: the job should stop now.
            JobError: its time is up.
        """
        self._check()
        self._held.report(min(max(int(percent), 0), _COMPLETE), message[:MAX_MESSAGE])

    def sleep(self, seconds: float) -> None:
        """Wait, and be woken early by a cancel.

        Raises:
            JobCancelled: the job should stop now.
            JobError: its time is up.
        """
        left = self._held.deadline - self._clock.monotonic()
        self._held.stop.wait(max(0.0, min(seconds, left)))
        self._check()

    def open(self, file: FileRef) -> BinaryIO:
        """Open an uploaded file for reading, seekable; closed with the attempt at the latest."""
        return self._open.enter_context(self._artifacts.local_copy(self._upload(file).path))

    def file_info(self, file: FileRef) -> FileInfo:
        """Return what is known of an uploaded file."""
        upload = self._upload(file)
        return FileInfo(
            name=upload.name,
            content_type=upload.content_type,
            size=upload.size,
            sha256=upload.sha256,
        )

    def save(self, name: str, data: bytes | BinaryIO, content_type: str) -> Artifact:
        """Keep an output file under `name`, replacing what this job had there."""
        if name not in self._saved and len(self._saved) >= MAX_ARTIFACTS:
            raise JobError(f"The job saved more than {MAX_ARTIFACTS} artifacts.")
        path = output_path(self.id, name)
        stored = self._artifacts.save(path, data, limit=MAX_ARTIFACT)
        self._saved[name] = StoredFile(
            path=path,
            name=name,
            size=stored.size,
            sha256=stored.sha256,
            content_type=content_type,
        )
        return Artifact(
            name=name,
            href=artifact_uri(name),
            size=stored.size,
            sha256=stored.sha256,
            content_type=content_type,
        )

    def keep(self, file: StoredFile) -> None:
        """Take note of an artifact that the handler saved from a process of its own."""
        self._saved[file.name] = file

    def close(self) -> None:
        """Close every file the handler left open."""
        self._open.close()

    def _upload(self, file: FileRef) -> StoredFile:
        return self._held.job.files[file.key]

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
