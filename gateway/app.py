"""The HTTP application: its routes, its answer to every error, and its server."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from config.settings import ApiSettings, Settings
from config.store import StoreFull, StoreUnavailable
from delivery.configure import cancelled_by_signals, wait_for_store
from gateway.access import Access
from gateway.admission import Admission
from gateway.api import JobsApi
from gateway.api_artifacts import ArtifactsApi
from gateway.api_endpoints import EndpointsApi
from gateway.api_files import FilesApi
from gateway.api_system import SystemApi
from gateway.artifacts import ArtifactError
from gateway.auth import Authenticator, bootstrap_key
from gateway.problems import Problem, render
from gateway.services import Services, open_services
from gateway.submit import RETRY_SECONDS
from gateway.urls import Urls

_ANSWERED = (Problem, StoreFull, StoreUnavailable, ArtifactError, HTTPException, Exception)
_BACKLOG = 2048
_KEEP_ALIVE_SECONDS = 75
_DRAIN_SECONDS = 10


def create_app(services: Services, admission: Admission | None = None) -> Starlette:
    """Return the application on `services`, which stay the caller's to close.

    Args:
        services: of this process.
        admission: says whether more jobs may wait; the caller's to run.

    Raises:
        ApiKeyError: the bootstrap key cannot be a key.
    """
    settings = services.settings
    admission = admission or Admission(services.jobs, settings.jobs, services.clock)
    urls = Urls(settings.public_url)
    bootstrap = settings.bootstrap_api_key.get_secret_value()
    authenticator = Authenticator(
        services.jobs.find_key, services.clock, bootstrap_key(bootstrap) if bootstrap else None
    )
    access = Access(authenticator, services.ring, services.clock)
    routes = [
        *JobsApi(services, access, urls, admission).routes(),
        *ArtifactsApi(services, access).routes(),
        *FilesApi(services, access, urls).routes(),
        *EndpointsApi(services, access, urls).routes(),
        *SystemApi(services, access).routes(),
    ]

    async def answer(request: Request, error: Exception) -> Response:
        problem = problem_of(error)
        body, headers = render(
            problem, page=urls.problem(problem.code), instance=urls.instance(request.url.path)
        )
        return Response(body, problem.status, headers)

    app = Starlette(
        routes=routes,
        exception_handlers={**dict.fromkeys(_ANSWERED, answer), ClientDisconnect: _nobody_listens},
    )
    # A redirect to the address with or without a slash would be no problem+json.
    app.router.redirect_slashes = False
    return app


def problem_of(error: Exception) -> Problem:
    """Return what a client is told of `error`; of an unforeseen one, only that it happened."""
    match error:
        case Problem():
            return error
        case StoreFull():
            return Problem("store_full", "nothing was kept", retry_after=RETRY_SECONDS)
        case StoreUnavailable():
            return Problem(
                "store_unavailable", "the store did not answer", retry_after=RETRY_SECONDS
            )
        case ArtifactError():
            return Problem(
                "artifacts_unavailable", "a file could not be used", retry_after=RETRY_SECONDS
            )
        case HTTPException(status_code=404):
            return Problem("not_found", "there is nothing at this address")
        case _:
            return Problem("internal_error", "the request could not be handled")


async def _nobody_listens(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then return; run it on uvloop.

    A descriptor in `api.fd` is the listening socket of a parent process and outlives this one.

    Raises:
        DefinitionError, SealError, ArtifactError, ApiKeyError: the settings cannot be used.
        PartitionsDiffer: the store was made with another number of partitions.
        StoreUnavailable: the store did not answer for half a minute.
    """
    services = open_services(settings)
    try:
        admission = Admission(services.jobs, settings.jobs, services.clock)
        app = create_app(services, admission)
        with cancelled_by_signals():
            await wait_for_store(services.store, settings)
        api = settings.api
        sockets = None if api.fd < 0 else [socket.socket(fileno=api.fd)]
        counting = asyncio.create_task(admission.run())
        try:
            await _Server(_configure(app, api)).serve(sockets=sockets)
        finally:
            counting.cancel()
            await asyncio.wait([counting])
    finally:
        await services.store.close()


def _configure(app: Starlette, api: ApiSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=api.host,
        port=api.port,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )


class _Server(uvicorn.Server):
    """A server that returns after a signal, where the library's would die of it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGTERM and SIGINT."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
