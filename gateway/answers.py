"""What several addresses answer alike: the job document, and that a job is taken on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from config.ids import random_float
from gateway.documents import document, retry_after
from gateway.models import View
from gateway.reading import read_file_results
from gateway.resource import json_response
from gateway.services import Services
from gateway.urls import Urls


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Writes answers about jobs.

    Attributes:
        services: of this process.
        urls: builds the addresses in them.
    """

    services: Services
    urls: Urls

    async def document(self, view: View) -> dict[str, Any]:
        """Return the job document, with results that are kept as a file read back.

        Raises:
            ArtifactError: they cannot be read.
        """
        services = self.services
        results = await read_file_results(view, services.artifacts)
        return document(view, urls=self.urls, ring=services.ring, file_results=results)

    async def accepted(self, view: View, *, replayed: bool = False) -> Response:
        """Return the 202 of a job that is kept, with where and when to ask for it.

        Args:
            view: the job.
            replayed: whether an earlier request with the same Idempotency-Key made it.
        """
        url = self.urls.job(view.job.id)
        headers = {
            "Location": url,
            "Link": f'<{url}>; rel="status"',
            "Retry-After": str(retry_after(view, random_float())),
            "Cache-Control": "no-store",
        }
        if replayed:
            headers["Idempotent-Replayed"] = "true"
        return json_response(await self.document(view), 202, headers)
