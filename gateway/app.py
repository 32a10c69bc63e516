"""The HTTP application: its routes, its answer to every error, and its server."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.http11 import Request as HandshakeRequest

from config.admin import admin_port
from config.errors import StoreFull, StoreUnavailable
from config.health import Health
from config.metrics import Page
from config.sections import ApiSettings
from config.settings import Settings
from config.tasks import background, cancel_all
from config.tracing import open_tracer
from delivery.configure import cancelled_by_signals, wait_for_store
from gateway.access import Access
from gateway.admission import Admission
from gateway.api.artifacts import ArtifactsApi
from gateway.api.audit import AuditApi
from gateway.api.deadletters import DeadLettersApi
from gateway.api.deliveries import DeliveriesApi
from gateway.api.docs import DocsApi
from gateway.api.endpoints import EndpointsApi
from gateway.api.files import FilesApi
from gateway.api.intake import Intake
from gateway.api.jobs import JobsApi
from gateway.api.keys import KeysApi
from gateway.api.ownership import OwnershipApi
from gateway.api.replays import ReplaysApi
from gateway.api.routes import RoutesApi
from gateway.api.samples import SamplesApi
from gateway.api.secrets import SecretsApi
from gateway.api.sights import ABORT, JobWatchers, job_watchers
from gateway.api.streams import StreamsApi
from gateway.api.system import SystemApi
from gateway.artifacts import ArtifactError
from gateway.auth import ApiKey, Authenticator, bootstrap_key
from gateway.connection import PatientProtocol, bounded
from gateway.keys import KeyStore
from gateway.middleware import Edge
from gateway.problems import Problem, render
from gateway.ratelimit import RateLimiter, RateLimits, connect_soft
from gateway.services import Services, open_services
from gateway.sockets import PatientSocket
from gateway.submit import RETRY_SECONDS
from gateway.tracing import SubmissionSpans
from gateway.urls import Urls

if TYPE_CHECKING:
    from config.spans import Tracer

_ANSWERED = (Problem, StoreFull, StoreUnavailable, ArtifactError, HTTPException, Exception)
_BACKLOG = 2048
_DRAIN_SECONDS = 10
_WS_MESSAGE_BYTES = 4096


def create_app(
    services: Services,
    admission: Admission | None = None,
    watchers: JobWatchers | None = None,
    limiter: RateLimiter | None = None,
    health: Health | None = None,
    operator: ApiKey | None = None,
    tracer: Tracer | None = None,
) -> Starlette:
    """Return the application on `services`, which stay the caller's to close.

    Args:
        services: of this process.
        admission: says whether more jobs may wait; the caller's to run.
        watchers: those who wait for jobs; the caller's to run and to close.
        limiter: counts requests, where the settings limit them.
        health: of this process; by default of one that has begun its work.
        operator: a key that is taken besides those in the store; that of the settings by default.
        tracer: records the spans of submissions; the caller's to close.

    Raises:
        ApiKeyError: the bootstrap key cannot be a key.
        DefinitionError: a configured route cannot be had.
    """
    settings = services.settings
    admission = admission or Admission(services.jobs, settings, services.clock)
    if health is None:
        health = Health(services.store, services.clock)
        health.begin()
    urls = Urls(settings.public_url)
    watchers = job_watchers(services, urls) if watchers is None else watchers
    bootstrap = settings.bootstrap_api_key.get_secret_value()
    keys = KeyStore(services.store)
    if operator is None and bootstrap:
        operator = bootstrap_key(bootstrap)
    authenticator = Authenticator(keys.find, services.clock, operator)
    access = Access(authenticator, services.ring, services.clock)
    intake = Intake(services, access, urls, admission, watchers)
    routes = [
        *JobsApi(services, access, urls, admission, watchers, intake).routes(),
        *StreamsApi(services, access, urls, watchers).routes(),
        *ArtifactsApi(services, access).routes(),
        *FilesApi(services, access, urls, admission).routes(),
        *EndpointsApi(services, access, urls).routes(),
        *SecretsApi(services, access).routes(),
        *SamplesApi(services, access, urls).routes(),
        *OwnershipApi(services, access, urls).routes(),
        *DeliveriesApi(services, access, urls).routes(),
        *DeadLettersApi(services, access, urls).routes(),
        *ReplaysApi(services, access, urls).routes(),
        *KeysApi(services, access, urls, keys).routes(),
        *AuditApi(services, access, urls).routes(),
        *SystemApi(services, access, health).routes(),
        *RoutesApi(services, intake).routes(),
        *DocsApi(services, urls).routes(),
    ]

    submissions = {"/v1/jobs", *settings.routes}
    services.metrics.offer(kind.name for kind in services.registry.types())

    def refuse(scope: Scope, problem: Problem) -> Response:
        if scope.get("method") == "POST" and scope["path"] in submissions:
            services.metrics.refused(problem.code)
        body, headers = render(
            problem, page=urls.problem(problem.code), instance=urls.instance(scope["path"])
        )
        return Response(body, problem.status, headers)

    async def answer(request: Request, error: Exception) -> Response:
        return refuse(request.scope, problem_of(error))

    def wrap(stack: ASGIApp) -> ASGIApp:
        if limiter is not None and settings.api.rate_limits:
            stack = RateLimits(
                stack,
                settings=settings.api,
                access=access,
                limiter=limiter,
                submissions=submissions,
                refuse=refuse,
            )
        if tracer is not None:
            stack = SubmissionSpans(stack, tracer=tracer, submissions=submissions)
        return Edge(
            stack,
            api=settings.api,
            public_url=settings.public_url,
            refuse=refuse,
            answered=services.metrics.answered,
        )

    app = _Application(
        wrap,
        routes=routes,
        exception_handlers={**dict.fromkeys(_ANSWERED, answer), ClientDisconnect: _nobody_listens},
    )
    # A redirect to the address with or without a slash would be no problem+json.
    app.router.redirect_slashes = False
    app.router.default = _nothing_here
    return app


class _Application(Starlette):
    """An application with layers around all that the library puts around its own.

    Answers to unforeseen errors, which the library writes outside of ordinary middleware, pass
    through them too.
    """

    def __init__(self, wrap: Callable[[ASGIApp], ASGIApp], **options: Any) -> None:
        super().__init__(**options)
        self._wrap = wrap

    def build_middleware_stack(self) -> ASGIApp:
        """Return the whole stack."""
        return self._wrap(super().build_middleware_stack())


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
        case _:
            return Problem("internal_error", "the request could not be handled")


async def _nothing_here(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Answer an address without a route; the library's own answer to a handshake would be 403."""
    raise Problem("not_found", "there is nothing at this address")


async def _nobody_listens(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then return; run it on uvloop.

    A descriptor in `api.fd` is the listening socket of a parent process and outlives this one.

    Raises:
        DefinitionError, SealError, ArtifactError, ApiKeyError: the settings cannot be used.
        AdminPortError: the admin port cannot be opened.
        PartitionsDiffer: the store was made with another number of partitions.
        StoreUnavailable: the store did not answer for half a minute.
    """
    services = open_services(settings)
    soft = connect_soft(settings)
    tracer = open_tracer(settings.tracing, "api")
    try:
        admission = Admission(services.jobs, settings, services.clock)
        urls = Urls(settings.public_url)
        watchers = job_watchers(services, urls)
        limiter = RateLimiter(soft, services.clock)
        health, page = Health(services.store, services.clock), Page(services.metrics.registry)
        app = create_app(services, admission, watchers, limiter, health, tracer=tracer)
        async with admin_port(settings.admin, "api", health, page):
            with cancelled_by_signals():
                await wait_for_store(services.store, settings)
            api = settings.api
            sockets = None if api.fd < 0 else [socket.socket(fileno=api.fd)]
            server = _Server(_configure(app, api, urls), watchers, health)
            loops = background((admission.run(health.beat), watchers.run()), server.stop)
            try:
                health.begin()
                await server.serve(sockets=sockets)
            finally:
                await cancel_all(loops)
    finally:
        if tracer is not None:
            await asyncio.to_thread(tracer.close)
        await soft.close()
        await services.store.close()


def _configure(app: Starlette, api: ApiSettings, urls: Urls) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=api.host,
        port=api.port,
        http=bounded(_HttpProtocol, api, urls),
        ws=type("Bounded", (_WebSocketProtocol,), {"api": api, "urls": urls}),
        ws_max_size=_WS_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=api.keep_alive_seconds,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )


class _HttpProtocol(PatientProtocol):
    """HTTP, with the extension ABORT."""

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        cast("Scope", self.scope)["extensions"] = {ABORT: self.transport.abort}


class _WebSocketProtocol(PatientSocket):
    """WebSockets, with the extension ABORT."""

    def handle_connect(self, event: HandshakeRequest) -> None:
        """Begin a handshake."""
        # It logs whole URLs, as the access log does. That log, being off, would write what goes
        # wrong past all handlers.
        self.logger = logging.getLogger("uvicorn.sockets")
        super().handle_connect(event)
        if not self.close_sent:
            cast("Scope", self.scope)["extensions"][ABORT] = self.transport.abort

    async def send(self, message: Any) -> None:
        """Send what the application says."""
        await super().send(message)
        if self.close_sent and self.initial_response is not None:
            # Refused by an answer: the library would call that no answer, as an error.
            self.handshake_complete = True


class _Server(uvicorn.Server):
    """A server that returns after a signal, where the library's would die of it."""

    def __init__(self, config: uvicorn.Config, watchers: JobWatchers, health: Health) -> None:
        super().__init__(config)
        self._watchers = watchers
        self._health = health

    def stop(self) -> None:
        """Stop in order."""
        self._health.drain()
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop in order; the second time, at once."""
        self._health.drain()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let those who wait for jobs go, and end what is under way."""
        self._watchers.close()
        await super().shutdown(sockets)

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
