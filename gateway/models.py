"""The gateway's nouns: jobs, what their callers owe them, and how the store keeps them.

A job is `pending -> processing -> completed | failed | cancelled`. A failed attempt with attempts
left goes back to `pending`, due at `next_run_at`. Terminal states absorb. After its time to live a
job leaves a `Tombstone`, and later nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, cast

from delivery.models import Scheme

Status = Literal["pending", "processing", "completed", "failed", "cancelled"]
Priority = Literal["high", "normal", "low"]

Payload = Literal["standard", "flat"]
"""A callback's body: the job document as its member `data`, or that document's members themselves.
"""

TERMINAL: frozenset[Status] = frozenset({"completed", "failed", "cancelled"})

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """Bytes kept outside the store for one job: an upload, an artifact, or a value too large to
    inline.

    Attributes:
        path: where the artifact store has it.
        name: what people call it; never used as a path.
        size: bytes.
        sha256: lower-case hexadecimal.
        content_type: as declared by whoever wrote it.
    """

    path: str
    name: str
    size: int
    sha256: str
    content_type: str

    def encode(self) -> JsonObject:
        """Return the JSON the store keeps."""
        return {
            "path": self.path,
            "name": self.name,
            "size": self.size,
            "sha256": self.sha256,
            "contentType": self.content_type,
        }

    @classmethod
    def decode(cls, kept: Mapping[str, Any]) -> Self:
        """Return what `encode` kept."""
        return cls(
            path=kept["path"],
            name=kept["name"],
            size=kept["size"],
            sha256=kept["sha256"],
            content_type=kept["contentType"],
        )


def callback_row(job_id: str) -> str:
    """Return the row that a job's callback URL and headers are sealed for."""
    return f"callback:{job_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """Where and how a job's events are to be sent.

    Attributes:
        endpoint: identifier of the endpoint (tenant + origin), whose secret signs.
        url: the URL in full, sealed for `callback_row(<job id>)`.
        url_hash: what tells one URL of an endpoint from another without unsealing it.
        events: the events subscribed to.
        headers: custom headers as a JSON object, sealed for the same row; empty when there are
            none.
        signature: how they are signed.
        payload: how their bodies are laid out.
    """

    endpoint: str
    url: bytes
    url_hash: str
    events: tuple[str, ...]
    headers: bytes = b""
    signature: Scheme = "v1"
    payload: Payload = "standard"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackState:
    """How the callback of a job's end stands, as its delivery tells.

    Attributes:
        status: `pending`, `delivered`, `dead` or `disabled`.
        attempts: how many were made.
        last_status_code: of the last answer, if there was one.
        next_attempt_at: µs, while one is to come.
    """

    status: Literal["pending", "delivered", "dead", "disabled"] = "pending"
    attempts: int = 0
    last_status_code: int | None = None
    next_attempt_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as the store has it at revision `rev`. All instants are µs of the store's clock."""

    id: str
    tenant: str
    type: str
    status: Status
    rev: int
    priority: Priority = "normal"
    input: Any = None
    input_file: StoredFile | None = None
    files: Mapping[str, StoredFile] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    callback: Callback | None = None
    trace: str | None = None
    on_complete: Literal["redirect", "inline"] = "redirect"
    attempt: int = 0
    max_attempts: int = 1
    timeout: float = 0
    queue_timeout: float | None = None
    result_ttl: int = 0
    created_at: int = 0
    run_at: int | None = None
    next_run_at: int | None = None
    started_at: int | None = None
    attempt_at: int | None = None
    updated_at: int = 0
    completed_at: int | None = None
    expires_at: int | None = None
    progress: int = 0
    message: str | None = None
    cancel_requested: bool = False
    results: Any = None
    results_file: StoredFile | None = None
    artifacts: Mapping[str, StoredFile] = field(default_factory=dict)
    error: str | None = None
    error_code: str | None = None
    retry_of: str | None = None
    retried_as: str | None = None
    claim: str | None = None
    beginning: str | None = None
    lost: int = 0
    read_at: int | None = None
    attempts: tuple[Mapping[str, Any], ...] = ()

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended, in whatever way."""
        return self.status in TERMINAL

    @property
    def given(self) -> int:
        """How many bytes kept outside the store it was given."""
        return total_size(self.files) + (self.input_file.size if self.input_file else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A job together with the state of its callback, read at one instant.

    Attributes:
        job: the job.
        callback: None without a callback URL.
        now: the store's time at the reading, µs.
        usual: µs that completed attempts at jobs of this type took lately; None for the first.
    """

    job: Job
    callback: CallbackState | None
    now: int
    usual: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """What is left of a job that expired.

    Attributes:
        job_id: its identifier.
        tenant: whose it was.
        status: how it ended.
        expired_at: µs.
    """

    job_id: str
    tenant: str
    status: Status
    expired_at: int


def encode_fields(job: Job) -> dict[str, str | bytes | int | float]:
    """Return the hash fields that keep `job`; members at their defaults are left out."""
    fields: dict[str, str | bytes | int | float | None] = {
        "tenant": job.tenant,
        "type": job.type,
        "status": job.status,
        "priority": job.priority,
        "input": None if job.input_file else compact(job.input),
        "inputFile": _encode_file(job.input_file),
        "files": _encode_files(job.files),
        "given": job.given or None,
        "metadata": compact(dict(job.metadata)) if job.metadata else None,
        "onComplete": None if job.on_complete == "redirect" else job.on_complete,
        "attempt": job.attempt or None,
        "maxAttempts": job.max_attempts,
        "timeout": job.timeout,
        "queueTimeout": job.queue_timeout,
        "resultTtl": job.result_ttl,
        "runAt": job.run_at,
        "nextRunAt": job.next_run_at,
        "retryOf": job.retry_of,
        "trace": job.trace,
        **_encode_callback(job.callback),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _encode_callback(callback: Callback | None) -> dict[str, str | bytes | None]:
    if callback is None:
        return {}
    return {
        "endpoint": callback.endpoint,
        "callbackUrl": callback.url,
        "urlHash": callback.url_hash,
        "events": ",".join(callback.events),
        "headers": callback.headers or None,
        "signature": None if callback.signature == "v1" else callback.signature,
        "payload": None if callback.payload == "standard" else callback.payload,
    }


def decode_fields(job_id: str, kept: Mapping[str, bytes]) -> Job:
    """Return the job that the hash fields `kept` describe."""
    return Job(
        id=job_id,
        tenant=kept["tenant"].decode(),
        type=kept["type"].decode(),
        status=cast("Status", kept["status"].decode()),
        rev=int(kept["rev"]),
        priority=cast("Priority", kept["priority"].decode()),
        input=_json(kept, "input"),
        input_file=_decode_file(kept, "inputFile"),
        files=_decode_files(kept, "files"),
        metadata=_json(kept, "metadata") or {},
        callback=_decode_callback(kept),
        trace=_text(kept, "trace"),
        on_complete="inline" if kept.get("onComplete") == b"inline" else "redirect",
        attempt=_int(kept, "attempt") or 0,
        max_attempts=int(kept["maxAttempts"]),
        timeout=float(kept["timeout"]),
        queue_timeout=float(kept["queueTimeout"]) if "queueTimeout" in kept else None,
        result_ttl=int(kept["resultTtl"]),
        created_at=int(kept["createdAt"]),
        run_at=_int(kept, "runAt"),
        next_run_at=_int(kept, "nextRunAt"),
        started_at=_int(kept, "startedAt"),
        attempt_at=_int(kept, "attemptAt"),
        updated_at=int(kept["updatedAt"]),
        completed_at=_int(kept, "completedAt"),
        expires_at=_int(kept, "expiresAt"),
        progress=_int(kept, "progress") or 0,
        message=_text(kept, "message"),
        cancel_requested=kept.get("cancelRequested") == b"1",
        results=_json(kept, "results"),
        results_file=_decode_file(kept, "resultsFile"),
        artifacts=_decode_files(kept, "artifacts"),
        error=_text(kept, "error"),
        error_code=_text(kept, "errorCode"),
        retry_of=_text(kept, "retryOf"),
        retried_as=_text(kept, "retriedAs"),
        claim=_text(kept, "claim"),
        beginning=_text(kept, "beginning"),
        lost=_int(kept, "lost") or 0,
        read_at=_int(kept, "readAt"),
        attempts=_decode_attempts(kept),
    )


def compact(value: Any) -> str:
    """Return `value` as JSON without white space, characters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def writable(text: str) -> str:
    """Return `text` with what UTF-8 cannot hold (lone surrogates) replaced."""
    return text.encode("utf-8", "replace").decode()


def total_size(files: Mapping[str, StoredFile]) -> int:
    """Return how many bytes `files` have together."""
    return sum(file.size for file in files.values())


def encode_files(files: Mapping[str, StoredFile]) -> str:
    """Return the JSON object that keeps `files` by their names."""
    return compact({name: file.encode() for name, file in files.items()})


def _encode_files(files: Mapping[str, StoredFile]) -> str | None:
    return encode_files(files) if files else None


def _encode_file(file: StoredFile | None) -> str | None:
    return compact(file.encode()) if file else None


def _decode_file(kept: Mapping[str, bytes], name: str) -> StoredFile | None:
    value = kept.get(name)
    return StoredFile.decode(json.loads(value)) if value else None


def _decode_files(kept: Mapping[str, bytes], name: str) -> dict[str, StoredFile]:
    value = kept.get(name)
    files = json.loads(value) if value else {}
    return {key: StoredFile.decode(file) for key, file in files.items()}


def _decode_callback(kept: Mapping[str, bytes]) -> Callback | None:
    if "callbackUrl" not in kept:
        return None
    return Callback(
        endpoint=kept["endpoint"].decode(),
        url=kept["callbackUrl"],
        url_hash=kept["urlHash"].decode(),
        events=tuple(kept["events"].decode().split(",")),
        headers=kept.get("headers", b""),
        signature=cast("Scheme", _text(kept, "signature") or "v1"),
        payload="flat" if kept.get("payload") == b"flat" else "standard",
    )


def _decode_attempts(kept: Mapping[str, bytes]) -> tuple[Mapping[str, Any], ...]:
    numbers = sorted(int(name[1:]) for name in kept if name[0] == "a" and name[1:].isdigit())
    return tuple({"number": n, **json.loads(kept[f"a{n}"])} for n in numbers)


def _json(kept: Mapping[str, bytes], name: str) -> Any:
    value = kept.get(name)
    return None if value is None else json.loads(value)


def _int(kept: Mapping[str, bytes], name: str) -> int | None:
    value = kept.get(name)
    return None if value is None else int(value)


def _text(kept: Mapping[str, bytes], name: str) -> str | None:
    value = kept.get(name)
    return None if value is None else value.decode()
