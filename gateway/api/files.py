"""Files that are uploaded by themselves, for jobs to come."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from config import ids
from config.clock import SECOND, rfc3339
from gateway.access import Access
from gateway.admission import Admission
from gateway.artifacts import file_path, file_prefix
from gateway.files import PREFIX, UploadedFile
from gateway.problems import Problem
from gateway.resource import json_response, resource
from gateway.services import Services
from gateway.streaming import stream_file
from gateway.uploads import discard_prefix, store_body
from gateway.urls import Urls


class FilesApi:
    """The addresses under `/v1/files`."""

    def __init__(
        self, services: Services, access: Access, urls: Urls, admission: Admission
    ) -> None:
        self._services = services
        self._access = access
        self._urls = urls
        self._admission = admission

    def routes(self) -> list[Route]:
        """Return what is answered where."""
        return [
            resource("/v1/files", POST=self.upload),
            resource("/v1/files/{file_id}", GET=self.download),
        ]

    async def upload(self, request: Request) -> Response:
        """`POST /v1/files`: 201 once the body is kept as a file."""
        principal = await self._access.principal(request, "submit")
        services, settings = self._services, self._services.settings
        partition = ids.random_partition(settings.store.partitions)
        file_id = ids.new_id(PREFIX, partition, services.clock.now())
        life = int(settings.jobs.file_ttl_seconds * SECOND)
        try:
            with self._admission.space(
                principal.tenant, settings.api.upload_limit_bytes
            ) as allowed:
                file = await store_body(
                    request, artifacts=services.artifacts, path=file_path(file_id), limit=allowed
                )
            kept = await services.files.put(file_id, principal.tenant, file, life=life)
        except BaseException:
            # Nobody was told of the file, so nobody misses it, even if its record was kept.
            await discard_prefix(services.artifacts, file_prefix(file_id))
            raise
        self._admission.stored(principal.tenant, file.size)
        headers = {"Location": self._urls.file(file_id), "Cache-Control": "no-store"}
        return json_response(self._document(kept), 201, headers)

    async def download(self, request: Request) -> Response:
        """`GET /v1/files/{fileId}`: the bytes, or one range of them."""
        principal = await self._access.principal(request, "read")
        found = await self._services.files.find(request.path_params["file_id"], principal.tenant)
        if found is None:
            raise Problem("not_found", "no file of this identifier is known")
        return await stream_file(request, found.file, self._services.artifacts)

    def _document(self, kept: UploadedFile) -> dict[str, Any]:
        return {
            "fileId": kept.id,
            "href": self._urls.file(kept.id),
            "size": kept.file.size,
            "sha256": kept.file.sha256,
            "contentType": kept.file.content_type,
            "expiresAt": rfc3339(kept.expires_at),
        }
