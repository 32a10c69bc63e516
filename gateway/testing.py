"""The test kit for handlers: run one in this process, without servers, store or broker.

    run = run_handler(build, {"year": 2026}, files={"figures": Path("figures.csv")})
    assert run.result["total"] == 12
    assert run.progress[-1].percent == 100

The input is validated as the gateway validates it, files reach the handler as uploads do, and
artifacts are kept by the real artifact store in a directory that goes with the run.
"""

from __future__ import annotations

import hashlib
import io
import mimetypes
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from gateway.artifacts import ArtifactStore, output_path
from gateway.faults import Fault
from gateway.jobcontext import Artifact, FileInfo, FileRef, JobCancelled, artifact_uri
from gateway.jobtypes import InputInvalid, JobType, file_refs

_JOB_ID = "job_00test"
_ARTIFACT_LIMIT = 2 * 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One progress report.

    Attributes:
        percent: 0 to 100.
        message: as people read it.
    """

    percent: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerRun:
    """What a handler did.

    Attributes:
        result: its result as JSON, as the gateway stores it.
        progress: its reports, in order.
        artifacts: the bytes it saved, by name.
        slept: seconds it asked to wait in all; no time passed.
    """

    result: dict[str, Any]
    progress: Sequence[Progress]
    artifacts: Mapping[str, bytes]
    slept: float


def run_handler(
    job_type: JobType,
    given: object,
    files: Mapping[str, bytes | Path] = MappingProxyType({}),
    *,
    metadata: Mapping[str, object] = MappingProxyType({}),
    attempt: int = 1,
    cancel_at: int | None = None,
) -> HandlerRun:
    """Run one attempt of a job and tell what came of it.

    `job.sleep` returns at once. An async handler gets an event loop of its own.

    Args:
        job_type: what to run.
        given: its input, as a client would send it, decoded.
        files: the files by part name or fileId: their bytes, or a file that holds them.
        metadata: as a client would attach it.
        attempt: which attempt this is, from 1.
        cancel_at: the percentage at whose report the job is cancelled; None lets it run.

    Raises:
        InputInvalid: the input does not fit the type, or names a file that `files` lacks.
        JobError, JobCancelled: as the handler raised them; so does any other exception.
        ResultInvalid: the handler returned something other than it promised.
        ArtifactError: it saved under a name that cannot be served.
    """
    model = job_type.parse_input(given)
    missing = [
        Fault(pointer, f"there is no file named {ref.key!r}")
        for pointer, ref in file_refs(model).items()
        if ref.key not in files
    ]
    if missing:
        raise InputInvalid(job_type.name, missing)
    with tempfile.TemporaryDirectory() as directory:
        job = _Context(
            attempt=attempt,
            max_attempts=max(attempt, job_type.max_attempts),
            metadata=metadata,
            files={name: _content(file) for name, file in files.items()},
            store=ArtifactStore(Path(directory).as_uri()),
            cancel_at=cancel_at,
        )
        return HandlerRun(
            result=job_type.run(job, model),
            progress=tuple(job.reports),
            artifacts={name: job.read(name) for name in job.saved},
            slept=job.slept,
        )


def _content(file: bytes | Path) -> bytes:
    return file if isinstance(file, bytes) else file.read_bytes()


@dataclass(slots=True, kw_only=True)
class _Context:
    """A `JobContext` whose job exists only here."""

    attempt: int
    max_attempts: int
    metadata: Mapping[str, object]
    files: Mapping[str, bytes]
    store: ArtifactStore
    cancel_at: int | None
    id: str = _JOB_ID
    reports: list[Progress] = field(default_factory=list)
    saved: list[str] = field(default_factory=list)
    slept: float = 0.0

    def progress(self, percent: int, message: str) -> None:
        self.reports.append(Progress(percent=percent, message=message))
        if self.cancel_at is not None and percent >= self.cancel_at:
            raise JobCancelled

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def open(self, file: FileRef) -> BinaryIO:
        return io.BytesIO(self.files[file.key])

    def file_info(self, file: FileRef) -> FileInfo:
        content = self.files[file.key]
        return FileInfo(
            name=file.key,
            content_type=mimetypes.guess_type(file.key)[0] or "application/octet-stream",
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )

    def save(self, name: str, data: bytes | BinaryIO, content_type: str) -> Artifact:
        stored = self.store.save(output_path(self.id, name), data, limit=_ARTIFACT_LIMIT)
        if name not in self.saved:
            self.saved.append(name)
        return Artifact(
            name=name,
            href=artifact_uri(name),
            size=stored.size,
            sha256=stored.sha256,
            content_type=content_type,
        )

    def read(self, name: str) -> bytes:
        with self.store.local_copy(output_path(self.id, name)) as kept:
            return kept.read()
