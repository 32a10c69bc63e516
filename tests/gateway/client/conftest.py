"""A client of either kind, before a whole gateway or a server that answers as planned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.client import (
    AsyncClient,
    Client,
    JobEvent,
    Patience,
)
from tests.gateway.client.server import Planned, Scripted, answer, scripted
from tests.running import API_KEY, ROOT, Gateway, running

SAMPLE = ROOT / "scripts" / "sample" / "river-restoration.pdf"
QUICK = Patience(attempts=3, first_pause=0.01, longest_pause=0.05, read=20)
CREATED = "2026-11-24T06:00:00.000Z"


class Both:
    """A client of one of the two kinds; its calls are awaited here."""

    def __init__(self, client: Client | AsyncClient) -> None:
        self._client = client

    async def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        method = getattr(self._client, name)
        if isinstance(self._client, Client):
            return await asyncio.to_thread(method, *arguments, **options)
        return await method(*arguments, **options)

    async def events(self, *arguments: Any, **options: Any) -> list[JobEvent]:
        if isinstance(self._client, Client):
            client = self._client
            return await asyncio.to_thread(lambda: list(client.events(*arguments, **options)))
        return [event async for event in self._client.events(*arguments, **options)]


@pytest.fixture(params=["blocking", "awaited"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def client_of(kind: str, url: str, key: str | None = API_KEY) -> AsyncIterator[Both]:
    if kind == "blocking":
        with Client(url, key, patience=QUICK) as client:
            yield Both(client)
    else:
        async with AsyncClient(url, key, patience=QUICK) as awaited:
            yield Both(awaited)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A running gateway."""
    settings = {"GATEWAY_JOBS_RETRY_GAPS_SECONDS": "[0.1]", "GATEWAY_JOBS_SWEEP_SECONDS": "0.2"}
    with running(tmp_path_factory.mktemp("client") / "data", settings) as started:
        yield started


@pytest.fixture
async def client(kind: str, whole: Gateway) -> AsyncIterator[Both]:
    async with client_of(kind, str(whole.client.base_url)) as client:
        yield client


@pytest.fixture(scope="module")
def listening() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


@pytest.fixture
def server(listening: Scripted) -> Scripted:
    """A server that answers as planned, and remembers what this test asked."""
    listening.received.clear()
    return listening


@pytest.fixture
async def planned(kind: str, server: Scripted) -> AsyncIterator[Both]:
    async with client_of(kind, server.url, "key") as client:
        yield client


def document(status: str = "processing", **members: Any) -> dict[str, Any]:
    shown = {"jobId": "job_1", "type": "t", "status": status, "createdAt": CREATED}
    return {**shown, "progress": 0, "results": None, **members}


def problem(status: int, code: str, **headers: str) -> Planned:
    return answer({"code": code, "detail": "so it is", "status": status}, status, headers)


def files_in(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}
