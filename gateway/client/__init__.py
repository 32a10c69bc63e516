"""Clients of a gateway: submit work, wait for it, fetch what came of it.

    with Client("https://gateway.example", api_key) as client:
        job = client.submit("document.analyze", {"document": {"part": "f"}}, files={"f": path})
        job = client.wait(job, timeout=300)
        client.download(job.results["artifacts"][0], "report.pdf")

`AsyncClient` is the same with `await`. Both need Python and httpx, and of this project nothing
but this folder, which may be copied.

Requests are repeated on connection errors and on 429, 502, 503 and 504, as `Patience` and
Retry-After say, and each is one that may be sent twice: a submission carries an Idempotency-Key.
What can go wrong is listed in `gateway.client.models`.
"""

from gateway.client.awaiting import AsyncClient
from gateway.client.blocking import Client
from gateway.client.exchange import Patience
from gateway.client.files import Upload
from gateway.client.models import (
    DownloadFailed,
    File,
    GatewayClientError,
    Job,
    JobCancelled,
    JobEvent,
    JobExpired,
    JobFailed,
    NoAnswer,
    Page,
    ProblemError,
    UnexpectedAnswer,
    WaitTimeout,
)

__all__ = [
    "AsyncClient",
    "Client",
    "DownloadFailed",
    "File",
    "GatewayClientError",
    "Job",
    "JobCancelled",
    "JobEvent",
    "JobExpired",
    "JobFailed",
    "NoAnswer",
    "Page",
    "Patience",
    "ProblemError",
    "UnexpectedAnswer",
    "Upload",
    "WaitTimeout",
]
