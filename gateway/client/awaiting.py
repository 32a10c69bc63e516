"""The client whose calls are awaited."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from types import TracebackType
from typing import Any, BinaryIO, Generic, Self, TypeVar, Unpack, assert_never

import httpx

from gateway.client.core import ListFilters, SubmitOptions
from gateway.client.download import ArtifactLike
from gateway.client.drivers import (
    LONG,
    Done,
    build_request,
    check_answer,
    is_streamed,
    make_calls,
    no_reply,
    reply_of,
)
from gateway.client.exchange import Exchange, Patience
from gateway.client.files import Body, FileSource, Upload
from gateway.client.models import File, Job, JobEvent, Page
from gateway.client.steps import Ask, Do, Emit, Flow, NoReply, Pause, Read, Reply

T = TypeVar("T")


class AsyncClient:
    """A client whose calls are awaited: each is the one of `Client` with the same name.

    Args:
        base_url: of the gateway, such as `https://gateway.example`.
        api_key: sent to that origin only; None to send none.
        patience: how long to try.
        http: the client to send with; the caller closes it.

    Raises:
        ValueError: the base URL is none.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        patience: Patience | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._calls = make_calls(base_url, api_key, patience)
        self._http = http or httpx.AsyncClient()
        self._owned = http is None

    async def submit(
        self,
        type: str,  # noqa: A002
        input: Mapping[str, Any],  # noqa: A002
        **options: Unpack[SubmitOptions],
    ) -> Job:
        """See `Client.submit`."""
        return await self._run(self._calls.submit(type, input, options))

    async def get(self, job: Job | str) -> Job:
        """See `Client.get`."""
        return await self._run(self._calls.get(job))

    async def wait(self, job: Job | str, timeout: float = LONG) -> Job:  # noqa: ASYNC109
        """See `Client.wait`."""
        return await self._run(self._calls.wait(job, timeout))

    async def events(
        self,
        job: Job | str,
        timeout: float = LONG,  # noqa: ASYNC109
    ) -> AsyncGenerator[JobEvent, None]:
        """See `Client.events`; whoever leaves the loop early closes the iterator."""
        async with _AsyncRun(
            self._calls.events(job, timeout), self._http, self._calls.exchange
        ) as run:
            while isinstance(step := await run.advance(), Emit):
                yield step.event

    async def result(self, job: Job | str) -> Job:
        """See `Client.result`."""
        return await self._run(self._calls.result(job))

    async def cancel(self, job: Job | str) -> Job:
        """See `Client.cancel`."""
        return await self._run(self._calls.cancel(job))

    async def retry(self, job: Job | str) -> Job:
        """See `Client.retry`."""
        return await self._run(self._calls.retry(job))

    async def delete(self, job: Job | str) -> None:
        """See `Client.delete`."""
        await self._run(self._calls.delete(job))

    async def list(self, **filters: Unpack[ListFilters]) -> Page:
        """See `Client.list`."""
        return await self._run(self._calls.list(filters))

    async def upload(self, file: Upload | FileSource) -> File:
        """See `Client.upload`."""
        return await self._run(self._calls.upload(file))

    async def ask(
        self, method: str, path: str, body: Any = None, *, idempotency_key: str | None = None
    ) -> Any:
        """See `Client.ask`."""
        return await self._run(self._calls.ask(method, path, body, idempotency_key))

    async def download(
        self, artifact: ArtifactLike, target: str | os.PathLike[str] | BinaryIO
    ) -> None:
        """See `Client.download`."""
        await self._run(self._calls.download(artifact, target))

    async def aclose(self) -> None:
        """Close the connections."""
        if self._owned:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.aclose()

    async def _run(self, flow: Flow[T]) -> T:
        async with _AsyncRun(flow, self._http, self._calls.exchange) as run:
            return await run.to_its_end()


class _AsyncRun(Generic[T]):
    """Takes the steps of one flow, and closes what it opened."""

    def __init__(self, flow: Flow[T], http: httpx.AsyncClient, exchange: Exchange) -> None:
        self._flow = flow
        self._http = http
        self._exchange = exchange
        self._response: httpx.Response | None = None
        self._pieces: AsyncIterator[bytes] | None = None

    async def advance(self) -> Emit | Done[T]:
        """Take steps until there is an event or the outcome."""
        came: object = None
        while True:
            try:
                step = self._flow.send(came)
            except StopIteration as end:
                return Done(end.value)
            match step:
                case Emit():
                    return step
                case Ask():
                    came = await self._ask(step)
                case Read():
                    came = await self._read()
                case Pause(seconds):
                    await asyncio.sleep(seconds)
                case Do(action):
                    await asyncio.to_thread(action)
                case _:
                    assert_never(step)

    async def to_its_end(self) -> T:
        """Take every step; return the outcome."""
        while isinstance(step := await self.advance(), Emit):
            pass
        return step.value

    async def _ask(self, ask: Ask) -> Reply | NoReply:
        await self._close()
        deadline = self._exchange.clock() + ask.read
        try:
            content = None if ask.body is None else _in_thread(ask.body)
            request = build_request(self._http, ask, content, self._exchange.patience)
            self._response = await self._http.send(request, stream=True, follow_redirects=False)
            self._pieces = self._response.aiter_bytes()
            if is_streamed(ask, self._response):
                return reply_of(self._response, b"")
            content_received = bytearray()
            async for piece in self._pieces:
                content_received += piece
                check_answer(content_received, self._exchange.clock() < deadline)
            return reply_of(self._response, bytes(content_received))
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            return no_reply(error)

    async def _read(self) -> bytes | NoReply | None:
        try:
            return None if self._pieces is None else await anext(self._pieces, None)
        except httpx.HTTPError as error:
            return no_reply(error)

    async def _close(self) -> None:
        if self._response is not None:
            await self._response.aclose()
            self._response = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._flow.close()
        await self._close()


async def _in_thread(body: Body) -> AsyncIterator[bytes]:
    chunks = body.chunks()
    while chunk := await asyncio.to_thread(next, chunks, b""):
        yield chunk
