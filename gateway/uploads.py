"""Files that come with a submission, from the client's socket to the artifact store.

The request in JSON comes first, so that the job's identifier and the files its input names are
known before the first byte of a file. A file's name is never a path: it is kept under a number.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from gateway.artifacts import ArtifactError, ArtifactStore, ArtifactTooLarge, input_path, job_prefix
from gateway.bodies import MULTIPART, limited
from gateway.faults import Fault
from gateway.models import StoredFile
from gateway.multipart import Multipart, Part
from gateway.problems import Problem

log = logging.getLogger("api")

REQUEST_PART = "job"
"""Name of the first part, which holds the request as JSON."""

_CONTENT_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(?: *; *[\w.+-]+=[\w.+\"-]+)*", re.ASCII)
_OPAQUE = "application/octet-stream"
_SHOWN_NAME = 255


async def read_request(form: Multipart, *, limit: int) -> bytes:
    """Return the JSON in the first part.

    Raises:
        Problem: `malformed_body` when another part comes first, `body_too_large`.
    """
    part = await form.next_part()
    if part is None or part.name != REQUEST_PART:
        raise Problem("malformed_body", f"the first part must be named {REQUEST_PART}")
    data = bytearray()
    async for chunk in form.chunks():
        data += chunk
        if len(data) > limit:
            raise Problem("body_too_large", f"the part {REQUEST_PART} may be at most {limit} bytes")
    return bytes(data)


async def store_files(
    form: Multipart,
    wanted: Mapping[str, str],
    *,
    artifacts: ArtifactStore,
    job_id: str,
    limit: int,
) -> dict[str, StoredFile]:
    """Store the remaining parts for the job and return them by part name.

    Nothing stays when this raises, a cancellation included.

    Args:
        form: the body, its request part read.
        wanted: JSON pointers of the members that name a part, by the part's name.
        artifacts: where the bytes go.
        job_id: whose files they are.
        limit: bytes a file may have.

    Raises:
        Problem: `invalid_input` for a part that is missing or not asked for, `body_too_large`,
            `malformed_body`.
        ArtifactError: the artifact store failed.
    """
    stored: dict[str, StoredFile] = {}
    try:
        while (part := await form.next_part()) is not None:
            _check_wanted(part, wanted, stored)
            stored[part.name] = await store_part(
                form, part, artifacts=artifacts, path=input_path(job_id, len(stored)), limit=limit
            )
        check_complete(wanted, stored)
    except BaseException:
        await discard(artifacts, job_id)
        raise
    return stored


def check_complete(wanted: Mapping[str, str], stored: Mapping[str, StoredFile]) -> None:
    """Pass when every part that the input names was uploaded.

    Raises:
        Problem: `invalid_input`, with the members that name the others.
    """
    faults = [
        Fault(where, f"no part named {name} was uploaded")
        for name, where in wanted.items()
        if name not in stored
    ]
    if faults:
        raise Problem(
            "invalid_input", "the input names files that were not uploaded", faults=faults
        )


async def store_body(
    request: Request, *, artifacts: ArtifactStore, path: str, limit: int
) -> StoredFile:
    """Store the whole body under `path`, as the file that it is.

    Raises:
        Problem: `unsupported_media_type`, `body_too_large`.
        ClientDisconnect: the client went away half-way.
        ArtifactError: the artifact store failed.
    """
    headers = request.headers
    declared = headers.get("content-type", _OPAQUE)
    if parse_options_header(declared)[0] == MULTIPART.encode():
        raise Problem("unsupported_media_type", "send the bytes of one file as the body")
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Problem("unsupported_media_type", "send the body without Content-Encoding")
    stored = await artifacts.put(path, limited(request, limit), limit=limit)
    return StoredFile(
        path=path,
        name=_name_of(request),
        size=stored.size,
        sha256=stored.sha256,
        content_type=_content_type(declared),
    )


def _name_of(request: Request) -> str:
    """Return what the client calls the file, in the query or by RFC 6266; for display only."""
    options = parse_options_header(request.headers.get("content-disposition"))[1]
    disposed = options.get(b"filename", b"").decode("utf-8", errors="replace")
    return (request.query_params.get("name") or disposed or "file")[:_SHOWN_NAME]


async def discard(artifacts: ArtifactStore, job_id: str) -> None:
    """Delete what is stored for `job_id`, which will not exist; what cannot go is logged."""
    await discard_prefix(artifacts, job_prefix(job_id))


async def discard_prefix(artifacts: ArtifactStore, prefix: str) -> None:
    """Delete what is stored under `prefix`, which nobody knows of; what cannot go is logged."""
    try:
        await artifacts.delete_prefix(prefix)
    except ArtifactError as error:
        log.warning("upload.not_deleted", extra={"prefix": prefix, "error": str(error)})


def _check_wanted(part: Part, wanted: Mapping[str, str], stored: Mapping[str, StoredFile]) -> None:
    if part.name in stored:
        raise Problem("malformed_body", "two parts have the same name")
    if part.name not in wanted:
        fault = Fault("/input", f"names no part {part.name}")
        detail = "a file was uploaded that the input does not name"
        raise Problem("invalid_input", detail, faults=[fault])


async def store_part(
    form: Multipart, part: Part, *, artifacts: ArtifactStore, path: str, limit: int
) -> StoredFile:
    """Store the part that `form` is at under `path`, as the file that it is.

    Raises:
        Problem: `body_too_large`.
        ArtifactError: the artifact store failed.
    """
    try:
        stored = await artifacts.put(path, form.chunks(), limit=limit)
    except ArtifactTooLarge as error:
        raise Problem("body_too_large", f"a file may be at most {limit} bytes") from error
    return StoredFile(
        path=path,
        name=part.filename or part.name,
        size=stored.size,
        sha256=stored.sha256,
        content_type=_content_type(part.content_type),
    )


def _content_type(declared: str) -> str:
    return declared if _CONTENT_TYPE.fullmatch(declared) else _OPAQUE
