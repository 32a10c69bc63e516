"""Readers who do not keep up are dropped, whatever they watch a job by."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    contextmanager,
    suppress,
)

from gateway.models import StoredFile, View
from tests.gateway.served import KEY, Serve, Served, document, messages
from tests.processes import eventually

LARGE = 12 * 2**20


async def large(served: Served, job_id: str) -> None:
    """End the job with results that fit into no buffer."""
    await served.claim(job_id)
    data = json.dumps({"payload": "x" * LARGE}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        yield data

    path = f"jobs/{job_id}/out/results.json"
    stored = await served.services.artifacts.put(path, pieces(), limit=len(data))
    file = StoredFile(
        path=path,
        name="results.json",
        size=stored.size,
        sha256=stored.sha256,
        content_type="application/json",
    )
    await served.finish(job_id, results_file=file)


async def test_a_slow_reader_of_a_stream_is_dropped(serve: Serve) -> None:
    async with serve(
        GATEWAY_API_SEND_TIMEOUT_SECONDS="0.2", GATEWAY_API_MAX_WATCHERS="1"
    ) as served:
        job_id = await served.submit()
        await large(served, job_id)
        with raw_client(served) as raw:
            raw.sendall(
                f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: h\r\n"
                f"Authorization: Bearer {KEY}\r\n\r\n".encode()
            )
            assert await asyncio.to_thread(
                eventually, lambda: served.logged("stream.slow_reader_dropped")
            )
            assert received(raw) < LARGE
        view = await served.services.jobs.read(job_id)
        assert isinstance(view, View)
        assert view.job.read_at is None
        told = [each async for each in messages(served, f"/v1/jobs/{job_id}/events")]
        assert len(document(told[-1])["results"]["payload"]) == LARGE


async def test_a_slow_reader_of_a_websocket_is_dropped(serve: Serve) -> None:
    async with serve(GATEWAY_API_SEND_TIMEOUT_SECONDS="0.2") as served:
        job_id = await served.submit()
        await large(served, job_id)
        with raw_client(served) as raw:
            raw.sendall(
                f"GET /v1/jobs/{job_id} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                f"Authorization: Bearer {KEY}\r\n\r\n".encode()
            )
            assert await asyncio.to_thread(
                eventually, lambda: served.logged("stream.slow_reader_dropped")
            )
            assert received(raw) < LARGE


@contextmanager
def raw_client(served: Served) -> Iterator[socket.socket]:
    """Connect with a small window, to read when the test says so."""
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(20)
        raw.connect(("127.0.0.1", int(served.url.rpartition(":")[2])))
        yield raw


def received(raw: socket.socket) -> int:
    """Return how many bytes were under way when the connection was cut."""
    count = 0
    with suppress(ConnectionResetError):
        while piece := raw.recv(65_536):
            count += len(piece)
    return count
