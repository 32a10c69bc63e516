"""What the worker and its child processes tell each other, as bytes.

The worker and the handler speak over the *line*, a socket of length-prefixed JSON:

    worker  -> handler      job, go (the answer to progress), stop
    handler -> worker       bounded (its memory), progress, saved, and at last one of returned,
                            raised, cancelled

The worker and the keeper speak over the *life*, a socket on which the keeper tells the handler's
process id and later its exit code. That the worker's end of it closes, however that comes about, is
the order to kill. The handler has no part in that, nor has any thread: C code may hold both up.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from gateway.errors import GatewayError
from gateway.models import Job, JsonObject, StoredFile, compact

MAX_FRAME: Final = 64 * 1024**2
"""The longest message in either direction, in bytes: in effect, the largest result."""

NUMBER: Final = struct.Struct("!i")
"""How the keeper writes a process id or an exit code; as in `subprocess`, -n is signal n."""

_LENGTH: Final = struct.Struct("!I")


class FrameError(GatewayError):
    """A message is too long, or is none."""


class Frames:
    """Messages out of a stream of bytes."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def feed(self, data: bytes) -> None:
        """Take in the next bytes of the stream."""
        self._kept += data

    def take(self) -> JsonObject | None:
        """Return the next message, None while it is not complete.

        Raises:
            FrameError: it is longer than MAX_FRAME, or not a JSON object.
        """
        if len(self._kept) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._kept)
        if length > MAX_FRAME:
            raise FrameError(f"a message of {length} bytes; the limit is {MAX_FRAME}")
        end = _LENGTH.size + length
        if len(self._kept) < end:
            return None
        body = bytes(self._kept[_LENGTH.size : end])
        del self._kept[:end]
        try:
            message = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise FrameError(f"a message is not JSON: {error}") from error
        if not isinstance(message, dict):
            raise FrameError("a message is not a JSON object")
        return message


def encode_frame(message: Mapping[str, Any]) -> bytes:
    """Return `message` as it travels.

    Raises:
        FrameError: it is longer than MAX_FRAME.
        ValueError: JSON cannot hold it.
    """
    body = compact(message).encode()
    if len(body) > MAX_FRAME:
        raise FrameError(f"a message of {len(body)} bytes; the limit is {MAX_FRAME}")
    return _LENGTH.pack(len(body)) + body


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildJob:
    """What a child is told of its job; the fields are those of `Job`.

    Attributes:
        trace: where the handler stands in it; None where no traces are recorded.
    """

    id: str
    type: str
    attempt: int
    max_attempts: int
    metadata: Mapping[str, Any] = field(default_factory=dict)
    input: Any = None
    input_file: StoredFile | None = None
    files: Mapping[str, StoredFile] = field(default_factory=dict)
    trace: str | None = None

    @classmethod
    def of(cls, job: Job) -> Self:
        """Return what a child is told of `job`, which was claimed."""
        return cls(
            id=job.id,
            type=job.type,
            attempt=job.attempt,
            max_attempts=job.max_attempts,
            metadata=job.metadata,
            input=job.input,
            input_file=job.input_file,
            files=job.files,
            trace=job.trace,
        )

    def encode(self) -> JsonObject:
        """Return the message that carries it."""
        return {
            "is": "job",
            "id": self.id,
            "type": self.type,
            "attempt": self.attempt,
            "maxAttempts": self.max_attempts,
            "metadata": dict(self.metadata),
            "input": self.input,
            "inputFile": self.input_file.encode() if self.input_file else None,
            "files": {part: file.encode() for part, file in self.files.items()},
            "trace": self.trace,
        }

    @classmethod
    def decode(cls, message: JsonObject) -> Self:
        """Return what `encode` made a message of."""
        kept = message["inputFile"]
        return cls(
            id=message["id"],
            type=message["type"],
            attempt=message["attempt"],
            max_attempts=message["maxAttempts"],
            metadata=message["metadata"],
            input=message["input"],
            input_file=StoredFile.decode(kept) if kept else None,
            files={part: StoredFile.decode(file) for part, file in message["files"].items()},
            trace=message["trace"],
        )
