"""A job's artifacts over HTTP: bytes, streamed, never run by a browser."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from gateway.access import Access
from gateway.models import StoredFile
from gateway.problems import Problem
from gateway.ranges import Range, RangeUnsatisfiable, parse_range
from gateway.reading import read_job
from gateway.resource import matches, resource
from gateway.services import Services

_CONTENT_TYPE = re.compile(r"[\x20-\x7e]{1,255}", re.ASCII)


class ArtifactsApi:
    """The addresses of artifacts."""

    def __init__(self, services: Services, access: Access) -> None:
        self._services = services
        self._access = access

    def routes(self) -> list[Route]:
        """Return what is answered where."""
        return [resource("/v1/jobs/{job_id}/artifacts/{name}", GET=self.artifact)]

    async def artifact(self, request: Request) -> Response:
        """`GET /v1/jobs/{jobId}/artifacts/{name}`: the bytes, or one range of them."""
        file = await self._find(request)
        etag = f'"{file.sha256}"'
        headers = _headers(file, etag)
        if matches(request.headers.get("if-none-match"), etag):
            return Response(status_code=304, headers=headers)
        wanted = _wanted_range(request, file, etag)
        length = wanted.length if wanted else file.size
        headers["Content-Length"] = str(length)
        if wanted:
            headers["Content-Range"] = f"bytes {wanted.start}-{wanted.end - 1}/{file.size}"
        status = 206 if wanted else 200
        if request.method == "HEAD" or not length:
            return Response(status_code=status, headers=headers)
        artifacts = self._services.artifacts
        if wanted:
            stream = await artifacts.open(file.path, start=wanted.start, end=wanted.end)
        else:
            stream = await artifacts.open(file.path)
        return StreamingResponse(stream, status, headers)

    async def _find(self, request: Request) -> StoredFile:
        job_id, name = request.path_params["job_id"], request.path_params["name"]
        reader = await self._access.reader(request, job_id)
        view = await read_job(
            self._services.jobs,
            job_id,
            tenant=reader.tenant,
            partitions=self._services.settings.store.partitions,
        )
        file = view.job.artifacts.get(name)
        if file is None:
            raise Problem("not_found", "the job has no artifact of this name")
        return file


def _headers(file: StoredFile, etag: str) -> dict[str, str]:
    known = _CONTENT_TYPE.fullmatch(file.content_type)
    return {
        "Content-Type": file.content_type if known else "application/octet-stream",
        "Content-Disposition": f'attachment; filename="{file.name}"',
        "X-Content-Type-Options": "nosniff",
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Cache-Control": "private, no-cache",
        "Vary": "Authorization, Origin",
    }


def _wanted_range(request: Request, file: StoredFile, etag: str) -> Range | None:
    if request.method != "GET" or request.headers.get("if-range", etag) != etag:
        return None
    try:
        return parse_range(request.headers.get("range"), file.size)
    except RangeUnsatisfiable as error:
        raise Problem(
            "range_not_satisfiable",
            f"the file has {file.size} bytes",
            headers={"Content-Range": f"bytes */{file.size}"},
        ) from error
