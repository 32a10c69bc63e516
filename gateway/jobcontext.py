"""What a handler sees: its job, the files of it, and the errors it may raise.

JobError: the job failed, and why, in a sentence for people and a code for programs.
JobCancelled: raised inside a handler by its context; handlers let it pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, BinaryIO, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

_ARTIFACT_SCHEME = "artifact:"


class JobError(Exception):
    """The job failed, and its handler knows why.

    Args:
        message: a sentence for people; it reaches the client as `error`.
        code: for programs; it reaches the client as `errorCode`.
        retry: whether another attempt could end differently.
    """

    def __init__(self, message: str, *, code: str = "handler_error", retry: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.retry = retry


class JobCancelled(BaseException):
    """The job was cancelled, or is no longer this worker's: stop now, whatever was done is void.

    Not an `Exception`, so that a handler's `except Exception` does not hold it up.
    """


def _one_of_the_two(schema: dict[str, Any]) -> None:
    """Say in the schema of a `FileRef` that it has one member, and no null."""
    text = {"type": "string", "minLength": 1, "maxLength": 100}
    schema["properties"] = {"part": text, "fileId": text}
    schema["oneOf"] = [{"required": ["part"]}, {"required": ["fileId"]}]


class JobModel(BaseModel):
    """Base of input and result models: members in camelCase on the wire, unknown ones refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, extra="forbid", frozen=True
    )


class FileRef(JobModel):
    """A file that came with the job, `{"part": "name"}`, or before it, `{"fileId": "file_…"}`."""

    model_config = ConfigDict(json_schema_extra=_one_of_the_two)

    part: Annotated[str | None, Field(strict=True, min_length=1, max_length=100)] = None
    file_id: Annotated[str | None, Field(strict=True, min_length=1, max_length=100)] = None

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.part is None) == (self.file_id is None):
            raise ValueError("must have either part or fileId")
        return self

    @property
    def key(self) -> str:
        """What the job keeps the file under."""
        return self.part or self.file_id or ""


class FileInfo(JobModel):
    """What is known of an uploaded file without reading it.

    Attributes:
        name: the file name as the client gave it; for display only, it may be anything.
        content_type: as the client declared it; not checked.
        size: bytes.
        sha256: lower-case hexadecimal.
    """

    name: str
    content_type: str
    size: int
    sha256: str


class Artifact(JobModel):
    """An output file of a job.

    Attributes:
        name: unique within the job.
        href: where clients fetch it. While the document is not rendered, an `artifact_uri`.
        size: bytes.
        sha256: lower-case hexadecimal.
        content_type: as the handler declared it.
        expires_at: RFC 3339; known only when the document is rendered.
    """

    name: str
    href: str
    size: int
    sha256: str
    content_type: str
    expires_at: str | None = None


def artifact_uri(name: str) -> str:
    """Return the placeholder that stands for an artifact's address inside stored results."""
    return f"{_ARTIFACT_SCHEME}{name}"


def artifact_name(uri: str) -> str | None:
    """Return the name inside an `artifact_uri`, None for any other text."""
    return uri.removeprefix(_ARTIFACT_SCHEME) if uri.startswith(_ARTIFACT_SCHEME) else None


class JobContext(Protocol):
    """What a handler may know of its job and do to it, from its own thread only."""

    @property
    def id(self) -> str:
        """The job's identifier: the idempotency key for effects outside the gateway."""

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""

    @property
    def max_attempts(self) -> int:
        """How many attempts the job has in all."""

    @property
    def metadata(self) -> Mapping[str, object]:
        """What the client attached to the job."""

    def progress(self, percent: int, message: str) -> None:
        """Tell how far the job is: 0 to 100, and a few words for people.

        Raises:
            JobCancelled: the job should stop now.
        """

    def sleep(self, seconds: float) -> None:
        """Wait, and be woken early by a cancel.

        Raises:
            JobCancelled: the job should stop now.
        """

    def open(self, file: FileRef) -> BinaryIO:
        """Open an uploaded file for reading, seekable; it is closed with the job at the latest."""

    def file_info(self, file: FileRef) -> FileInfo:
        """Return what is known of an uploaded file."""

    def save(self, name: str, data: bytes | BinaryIO, content_type: str) -> Artifact:
        """Keep an output file under `name`, replacing what this job had there.

        Args:
            name: `[A-Za-z0-9][A-Za-z0-9._-]{0,99}`.
            data: the bytes, or a file to read to its end.
            content_type: how it is served.
        """
