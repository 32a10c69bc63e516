"""The client whose calls block."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator, Mapping
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
from gateway.client.files import FileSource, Upload
from gateway.client.models import File, Job, JobEvent, Page
from gateway.client.steps import Ask, Do, Emit, Flow, NoReply, Pause, Read, Reply

T = TypeVar("T")


class Client:
    """A client whose calls block. It may be shared by threads.

    Args:
        base_url: of the gateway, such as `https://gateway.example`.
        api_key: sent to that origin only; None to send none.
        patience: how long to try.
        http: the client to send with, for proxies or certificates of one's own; the caller closes
            it. Redirects are never left to it.

    Raises:
        ValueError: the base URL is none.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        patience: Patience | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        self._calls = make_calls(base_url, api_key, patience)
        self._http = http or httpx.Client()
        self._owned = http is None

    def submit(self, type: str, input: Mapping[str, Any], **options: Unpack[SubmitOptions]) -> Job:  # noqa: A002
        """Have a job of `type` done with `input`; return it as it was accepted.

        Raises:
            ProblemError: it was refused; `errors` names the members at fault.
            NoAnswer: whether it was accepted is not known. Submitting again with the same
                `idempotency_key` finds out.
            OSError, ValueError: a file or an option cannot be used.
        """
        return self._run(self._calls.submit(type, input, options))

    def get(self, job: Job | str) -> Job:
        """Return the job as it stands.

        Raises:
            JobExpired, ProblemError, NoAnswer.
        """
        return self._run(self._calls.get(job))

    def wait(self, job: Job | str, timeout: float = LONG) -> Job:
        """Return the job once it has completed, with its results.

        Raises:
            JobFailed, JobCancelled: it ended otherwise.
            WaitTimeout: it had not ended after `timeout` seconds.
            JobExpired, ProblemError, NoAnswer.
        """
        return self._run(self._calls.wait(job, timeout))

    def events(self, job: Job | str, timeout: float = LONG) -> Generator[JobEvent, None, None]:
        """Yield what happens to the job until it has ended.

        From its event stream, taken up where it broke off; by polling where there is none.

        Raises:
            WaitTimeout: it had not ended after `timeout` seconds.
            JobExpired, ProblemError, NoAnswer.
        """
        with _Run(self._calls.events(job, timeout), self._http, self._calls.exchange) as run:
            while isinstance(step := run.advance(), Emit):
                yield step.event

    def result(self, job: Job | str) -> Job:
        """Return the completed job with its results.

        Raises:
            ProblemError: `result_not_ready`, `job_failed`, `job_cancelled` and others.
            JobExpired, NoAnswer.
        """
        return self._run(self._calls.result(job))

    def cancel(self, job: Job | str) -> Job:
        """Have the job cancelled; it may still be processing, with `cancel_requested`.

        Raises:
            ProblemError: `job_not_cancellable`, as it has ended, and others.
            JobExpired, NoAnswer.
        """
        return self._run(self._calls.cancel(job))

    def retry(self, job: Job | str) -> Job:
        """Have a job that failed or was cancelled run again; return the new job.

        Raises:
            ProblemError: `job_not_retryable` and others.
            JobExpired, NoAnswer.
        """
        return self._run(self._calls.retry(job))

    def delete(self, job: Job | str) -> None:
        """Erase what is kept of a job that has ended.

        Raises:
            ProblemError: `job_not_ended` and others.
            NoAnswer.
        """
        self._run(self._calls.delete(job))

    def list(self, **filters: Unpack[ListFilters]) -> Page:
        """Return a page of jobs, newest first, without results.

        Raises:
            ProblemError, NoAnswer.
        """
        return self._run(self._calls.list(filters))

    def upload(self, file: Upload | FileSource) -> File:
        """Upload a file for jobs to come, whose input names it as `{"fileId": …}`.

        Raises:
            ProblemError, NoAnswer.
            OSError, ValueError: the file cannot be read.
        """
        return self._run(self._calls.upload(file))

    def ask(
        self, method: str, path: str, body: Any = None, *, idempotency_key: str | None = None
    ) -> Any:
        """Ask any other address of the API; return the decoded answer, None for an empty one.

        GET, PUT and DELETE are repeated as everything else is; another method is sent once, unless
        there is a key.

        Args:
            method: such as `GET`.
            path: such as `/v1/endpoints`, with its query.
            body: is sent as JSON; None sends none.
            idempotency_key: for an address that knows such keys: what is sent twice under one is
                done once.

        Raises:
            ProblemError, NoAnswer.
        """
        return self._run(self._calls.ask(method, path, body, idempotency_key))

    def download(self, artifact: ArtifactLike, target: str | os.PathLike[str] | BinaryIO) -> None:
        """Fetch an artifact of a result into a file, and check its size and SHA-256.

        A path appears complete or not at all; an open file is written as the bytes come.

        Raises:
            DownloadFailed: these are not the bytes.
            JobExpired, ProblemError, NoAnswer.
            OSError: they cannot be written.
        """
        self._run(self._calls.download(artifact, target))

    def close(self) -> None:
        """Close the connections."""
        if self._owned:
            self._http.close()

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self.close()

    def _run(self, flow: Flow[T]) -> T:
        with _Run(flow, self._http, self._calls.exchange) as run:
            return run.to_its_end()


class _Run(Generic[T]):
    """Takes the steps of one flow, and closes what it opened."""

    def __init__(self, flow: Flow[T], http: httpx.Client, exchange: Exchange) -> None:
        self._flow = flow
        self._http = http
        self._exchange = exchange
        self._response: httpx.Response | None = None
        self._pieces: Iterator[bytes] | None = None

    def advance(self) -> Emit | Done[T]:
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
                    came = self._ask(step)
                case Read():
                    came = self._read()
                case Pause(seconds):
                    time.sleep(seconds)
                case Do(action):
                    action()
                case _:
                    assert_never(step)

    def to_its_end(self) -> T:
        """Take every step; return the outcome."""
        while isinstance(step := self.advance(), Emit):
            pass
        return step.value

    def _ask(self, ask: Ask) -> Reply | NoReply:
        self._close()
        deadline = self._exchange.clock() + ask.read
        try:
            content = None if ask.body is None else ask.body.chunks()
            request = build_request(self._http, ask, content, self._exchange.patience)
            self._response = self._http.send(request, stream=True, follow_redirects=False)
            self._pieces = self._response.iter_bytes()
            if is_streamed(ask, self._response):
                return reply_of(self._response, b"")
            content_received = bytearray()
            for piece in self._pieces:
                content_received += piece
                check_answer(content_received, self._exchange.clock() < deadline)
            return reply_of(self._response, bytes(content_received))
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            return no_reply(error)

    def _read(self) -> bytes | NoReply | None:
        try:
            return None if self._pieces is None else next(self._pieces, None)
        except httpx.HTTPError as error:
            return no_reply(error)

    def _close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._flow.close()
        self._close()
