"""A job's artifacts over HTTP."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.access import Access
from gateway.models import StoredFile
from gateway.problems import Problem
from gateway.reading import read_job
from gateway.resource import resource
from gateway.services import Services
from gateway.streaming import stream_file


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
        return await stream_file(request, await self._find(request), self._services.artifacts)

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
