"""The files of one attempt: uploads to read, artifacts to keep."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property
from typing import Any, BinaryIO

from gateway.artifacts import ArtifactStore, output_path
from gateway.jobcontext import Artifact, FileInfo, FileRef, JobError, artifact_uri
from gateway.models import StoredFile

MAX_ARTIFACT = 16 * 1024**3
"""The largest artifact, in bytes."""

MAX_ARTIFACTS = 1_000
"""How many artifacts one job may save."""


class JobFiles:
    """What every `JobContext` does with files, used from the handler's thread."""

    def __init__(
        self,
        job_id: str,
        uploads: Mapping[str, StoredFile],
        open_store: Callable[[], ArtifactStore],
    ) -> None:
        """Serve the files of the job `job_id`.

        Args:
            job_id: the job.
            uploads: what was uploaded, by part.
            open_store: returns the artifact store; called when it is first needed.
        """
        self._job_id = job_id
        self._uploads = uploads
        self._open_store = open_store
        self._saved: dict[str, StoredFile] = {}
        self._open = ExitStack()

    @cached_property
    def artifacts(self) -> ArtifactStore:
        """Where the files are."""
        return self._open_store()

    @property
    def saved(self) -> Mapping[str, StoredFile]:
        """The artifacts kept so far, by name."""
        return self._saved

    def read_input(self, inline: Any, file: StoredFile | None) -> Any:
        """Return the job's input, decoded: `inline`, or what `file` holds that was too large."""
        if file is None:
            return inline
        with self.artifacts.local_copy(file.path) as kept:
            return json.loads(kept.read(file.size))

    def open(self, file: FileRef) -> BinaryIO:
        """Open an uploaded file for reading, seekable; closed with the attempt at the latest."""
        return self._open.enter_context(self.artifacts.local_copy(self._upload(file).path))

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
        """Keep an output file under `name`, replacing what this job had there.

        Raises:
            JobError: there are MAX_ARTIFACTS already.
            ArtifactError: `name` cannot be one, or the storage failed.
        """
        if name not in self._saved and len(self._saved) >= MAX_ARTIFACTS:
            raise JobError(f"The job saved more than {MAX_ARTIFACTS} artifacts.")
        path = output_path(self._job_id, name)
        stored = self.artifacts.save(path, data, limit=MAX_ARTIFACT)
        self.keep(
            StoredFile(
                path=path,
                name=name,
                size=stored.size,
                sha256=stored.sha256,
                content_type=content_type,
            )
        )
        return Artifact(
            name=name,
            href=artifact_uri(name),
            size=stored.size,
            sha256=stored.sha256,
            content_type=content_type,
        )

    def keep(self, file: StoredFile) -> None:
        """Take note of an artifact that is stored."""
        self._saved[file.name] = file

    def close(self) -> None:
        """Close every file the handler left open."""
        self._open.close()

    def _upload(self, file: FileRef) -> StoredFile:
        return self._uploads[file.key]
