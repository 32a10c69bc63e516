"""What is done to a job over HTTP after it was submitted: cancel it, erase it, run it again."""

from __future__ import annotations

import logging
from typing import assert_never

from starlette.requests import Request
from starlette.responses import Response

from config.clock import SECOND
from config.errors import StoreError
from config.ids import random_float
from delivery.configure import policy_of
from gateway.access import Access
from gateway.admission import Admission
from gateway.answers import Answers
from gateway.artifacts import ArtifactError, job_prefix
from gateway.callbacks import Renderer
from gateway.cancelling import Canceller
from gateway.documents import retry_after
from gateway.models import View
from gateway.problems import Problem
from gateway.reading import read_job
from gateway.rerun import Rerunner
from gateway.resource import json_response
from gateway.services import Services
from gateway.urls import Urls

log = logging.getLogger("api")

_NO_STORE = {"Cache-Control": "no-store"}


class JobControl:
    """Answers for the addresses that change a job."""

    def __init__(
        self, services: Services, access: Access, urls: Urls, admission: Admission
    ) -> None:
        self._services = services
        self._access = access
        self._admission = admission
        self._answers = Answers(services=services, urls=urls)
        self._canceller = Canceller(
            jobs=services.jobs,
            work=services.work,
            renderer=Renderer(urls=urls, ring=services.ring),
            clock=services.clock,
        )
        self._rerunner = Rerunner(
            jobs=services.jobs,
            artifacts=services.artifacts,
            ring=services.ring,
            clock=services.clock,
            policy=policy_of(services.settings),
        )

    async def cancel(self, request: Request) -> Response:
        """`POST /v1/jobs/{jobId}/cancel`: 200 it is cancelled, 202 its worker is told."""
        principal = await self._access.principal(request, "submit")
        view = await self._read(request, principal.tenant)
        cancelling = await self._canceller.cancel(view.job.id)
        if cancelling is None:
            # Expired meanwhile, which reading it again tells.
            view = await self._read(request, principal.tenant)
            raise Problem("job_not_cancellable", f"the job is {view.job.status}")
        view = cancelling.view
        match cancelling.state:
            case "cancelled":
                return json_response(await self._answers.document(view), 200, _NO_STORE)
            case "requested":
                headers = {**_NO_STORE, "Retry-After": str(retry_after(view, random_float()))}
                return json_response(await self._answers.document(view), 202, headers)
            case "ended":
                raise Problem("job_not_cancellable", f"the job is {view.job.status}")
            case _:
                assert_never(cancelling.state)

    async def erase(self, request: Request) -> Response:
        """`DELETE /v1/jobs/{jobId}`: 204 once nothing is left of an ended job but its tombstone."""
        principal = await self._access.principal(request, "submit")
        view = await self._read(request, principal.tenant)
        job_id = view.job.id
        life = int(self._services.settings.jobs.tombstone_seconds * SECOND)
        status = await self._services.jobs.erase(job_id, tombstone_life=life)
        # None: it expired meanwhile, or a first try whose reply was lost erased it.
        if status in {"pending", "processing"}:
            raise Problem("job_not_ended", f"the job is {status}")
        log.info("job.erased", extra={"job": job_id, "key": principal.key_id})
        await self._delete_files(job_id)
        return Response(status_code=204, headers=_NO_STORE)

    async def _delete_files(self, job_id: str) -> None:
        """Delete what is kept outside the store; a relay deletes later what cannot go now."""
        try:
            await self._services.artifacts.delete_prefix(job_prefix(job_id))
            await self._services.outbox.forget_files(job_id)
        except (ArtifactError, StoreError) as error:
            log.warning("job.files_not_deleted", extra={"job": job_id, "error": str(error)})

    async def retry(self, request: Request) -> Response:
        """`POST /v1/jobs/{jobId}/retry`: 202 with the new job, one however often it is asked."""
        principal = await self._access.principal(request, "submit")
        self._admission.check(principal.tenant)
        await self._require_owner(request, principal.tenant)
        rerun = await self._rerunner.run_again(
            request.path_params["job_id"], tenant=principal.tenant
        )
        if rerun.is_new:
            self._admission.accepted(principal.tenant, rerun.view.job.given)
            self._services.metrics.accepted(rerun.view.job.type)
        return await self._answers.accepted(rerun.view)

    async def _require_owner(self, request: Request, tenant: str) -> None:
        ownership = self._services.ownership
        if ownership.mode(tenant) == "refuse":
            callback = (await self._read(request, tenant)).job.callback
            await ownership.require(tenant, callback.endpoint if callback else None, "")

    async def _read(self, request: Request, tenant: str) -> View:
        return await read_job(
            self._services.jobs,
            request.path_params["job_id"],
            tenant=tenant,
            partitions=self._services.settings.store.partitions,
        )
