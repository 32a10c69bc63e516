"""The client without its network: each call as a flow, for the drivers of `gateway.client`."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, BinaryIO, Literal, TypedDict
from urllib.parse import quote, urlencode

from gateway.client.download import ArtifactLike, Downloader
from gateway.client.exchange import Exchange, job_id, job_path
from gateway.client.files import Body, FileSource, Upload, form, quoted, sink_of, source_of
from gateway.client.models import File, Job, JobExpired, Page, UnexpectedAnswer
from gateway.client.steps import Flow, Reply
from gateway.client.watch import Watcher

_IDEMPOTENT = frozenset({"GET", "PUT", "DELETE"})
_PATH = re.compile(r"/v1/[A-Za-z0-9]")


class SubmitOptions(TypedDict, total=False):
    """What a submission may say besides type and input (`POST /v1/jobs`).

    `files` holds the files that the input names as `{"part": name}`. Without `idempotency_key` each
    call makes one of its own, so that it can be repeated without a second job.
    """

    callback_url: str | None
    callback: Mapping[str, Any] | None
    files: Mapping[str, Upload | FileSource] | None
    priority: Literal["high", "normal", "low"] | None
    run_at: datetime | None
    timeout_seconds: float | None
    queue_timeout_seconds: float | None
    result_ttl_seconds: int | None
    max_attempts: int | None
    metadata: Mapping[str, Any] | None
    idempotency_key: str | None


class ListFilters(TypedDict, total=False):
    """Which jobs to list (`GET /v1/jobs`)."""

    status: str | None
    type: str | None
    created_after: datetime | None
    created_before: datetime | None
    limit: int | None
    cursor: str | None


class Calls:
    """Every call to one gateway, as a flow."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self._watcher = Watcher(exchange)
        self._downloader = Downloader(exchange)

    def submit(
        self, job_type: str, job_input: Mapping[str, Any], options: SubmitOptions
    ) -> Flow[Job]:
        """`POST /v1/jobs`, repeated under one Idempotency-Key."""
        request = _submission(job_type, job_input, options)
        files = options.get("files")
        if files:
            sources = {name: source_of(upload, name) for name, upload in files.items()}
            body = form(request, sources, f"part-{token()}")
        else:
            body = Body(content_type="application/json", segments=[request])
        headers = {"Idempotency-Key": options.get("idempotency_key") or token()}
        reply = yield from self._call("POST", "/v1/jobs", headers, body)
        return Job.of(reply.json())

    def get(self, job: Job | str) -> Flow[Job]:
        """`GET /v1/jobs/{jobId}`; the redirect of a completed job carries the document itself."""
        reply = yield from self._call("GET", job_path(job))
        return Job.of(reply.json())

    def result(self, job: Job | str) -> Flow[Job]:
        """`GET /v1/jobs/{jobId}/result`."""
        reply = yield from self._call("GET", job_path(job, "/result"))
        return Job.of(reply.json())

    def cancel(self, job: Job | str) -> Flow[Job]:
        """`POST /v1/jobs/{jobId}/cancel`, which may be said twice."""
        reply = yield from self._call("POST", job_path(job, "/cancel"))
        return Job.of(reply.json())

    def retry(self, job: Job | str) -> Flow[Job]:
        """`POST /v1/jobs/{jobId}/retry`, which makes one job however often it is said."""
        headers = {"Idempotency-Key": f"retry-{job_id(job)}"}
        reply = yield from self._call("POST", job_path(job, "/retry"), headers)
        return Job.of(reply.json())

    def delete(self, job: Job | str) -> Flow[None]:
        """`DELETE /v1/jobs/{jobId}`; what is gone already is as it should be."""
        try:
            yield from self._call("DELETE", job_path(job))
        except JobExpired:
            return

    def list(self, filters: ListFilters) -> Flow[Page]:
        """`GET /v1/jobs`: one page."""
        given = {
            _camel(name): _written(value) for name, value in filters.items() if value is not None
        }
        reply = yield from self._call("GET", f"/v1/jobs?{urlencode(given)}".rstrip("?"))
        match reply.json():
            case {"items": [*items], "nextCursor": str() | None as cursor}:
                return Page(items=tuple(map(Job.of, items)), next_cursor=cursor)
            case _:
                raise UnexpectedAnswer("this is no page of jobs")

    def upload(self, upload: Upload | FileSource) -> Flow[File]:
        """`POST /v1/files`; a file that a lost answer leaves behind expires by itself."""
        source = source_of(upload)
        name = quote(source.name, safe="", errors="replace")
        headers = {"Content-Disposition": f"attachment; filename*=utf-8''{name}"}
        if source.name.isascii():
            headers["Content-Disposition"] = f'attachment; filename="{quoted(source.name)}"'
        body = Body(content_type=source.content_type, segments=[source])
        reply = yield from self._call("POST", "/v1/files", headers, body)
        return File.of(reply.json())

    def ask(
        self, method: str, path: str, body: Any = None, idempotency_key: str | None = None
    ) -> Flow[Any]:
        """Any other address; repeated where its method (RFC 9110) or a key says that it may be."""
        if _PATH.match(path) is None:
            raise ValueError(f"this is no path of the API: {path!r}")
        sent = None
        if body is not None:
            content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
            sent = Body(content_type="application/json", segments=[content])
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        request = self.exchange.ask(method, path, headers, sent)
        once = method not in _IDEMPOTENT and idempotency_key is None
        reply = yield from self.exchange.call(request, once=once)
        return reply.json() if reply.content else None

    def wait(self, job: Job | str, timeout: float) -> Flow[Job]:
        """`GET /v1/jobs/{jobId}` until the job has ended."""
        return self._watcher.wait(job, timeout)

    def events(self, job: Job | str, timeout: float) -> Flow[None]:
        """`GET /v1/jobs/{jobId}/events` until the job has ended."""
        return self._watcher.events(job, timeout)

    def download(
        self, artifact: ArtifactLike, target: str | os.PathLike[str] | BinaryIO
    ) -> Flow[None]:
        """`GET` the bytes of an artifact."""
        return self._downloader.download(artifact, sink_of(target, token()))

    def _call(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> Flow[Reply]:
        return self.exchange.call(self.exchange.ask(method, path, headers, body))


def token() -> str:
    """Return text that nobody else has: 144 random bits in 24 characters."""
    return base64.urlsafe_b64encode(os.urandom(18)).decode()


def chance() -> float:
    """Return a number in [0, 1), to spread pauses with."""
    return int.from_bytes(os.urandom(6)) / 2**48


def _submission(job_type: str, job_input: Mapping[str, Any], options: SubmitOptions) -> bytes:
    members: dict[str, Any] = {"type": job_type, "input": job_input}
    for name, value in options.items():
        if name not in {"files", "idempotency_key"} and value is not None:
            members[_camel(name)] = _written(value) if name == "run_at" else value
    return json.dumps(members, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _written(value: object) -> object:
    """Return `value` as it is sent: times as RFC 3339 in UTC."""
    if not isinstance(value, datetime):
        return value
    if value.tzinfo is None:
        raise ValueError("a time needs a time zone, such as datetime.UTC")
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))
