"""A running api process for tests, and what they watch jobs with."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from config.clock import SECOND
from config.settings import environment
from gateway.auth import Scope, make_key
from gateway.client.stream import Message, StreamParser
from gateway.keys import KeyStore
from gateway.models import View
from gateway.services import Services
from gateway.work import End, Ended, Report
from tests.conftest import RunningStores
from tests.gateway.conftest import SEALING
from tests.gateway.jobs import ECHO

KEY = "key-of-the-tests"
BEARER = {"Authorization": f"Bearer {KEY}"}


@dataclass(slots=True)
class Served:
    """A running api process, and the store that it and the test work on."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    services: Services
    client: httpx.AsyncClient

    def socket_url(self, path: str) -> str:
        """Return the address of a WebSocket."""
        return "ws" + self.url.removeprefix("http") + path

    def logged(self, event: str) -> bool:
        """Whether the process wrote `event` to its log."""
        return event in self.log.read_text()

    async def submit(self) -> str:
        """Submit a job."""
        answer = await self.client.post("/v1/jobs", json=ECHO)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["jobId"])

    async def claim(self, job_id: str) -> View:
        """Begin to work on the job."""
        view = await self.services.work.claim(job_id, "claim", lease=60 * SECOND)
        assert view is not None
        return view

    async def report(self, job_id: str, percent: int) -> None:
        """Say how far the work is."""
        said = Report(job_id=job_id, claim="claim", percent=percent, message="on it")
        assert await self.services.work.progress([said]) != [None]

    async def finish(self, job_id: str, status: str = "completed", **more: Any) -> View:
        """End the job, claimed before or not."""
        view = await self.services.jobs.read(job_id)
        assert isinstance(view, View)
        if view.job.claim is None:
            view = await self.claim(job_id)
        end = End(
            claim="claim",
            by="test",
            rev=view.job.rev,
            status=status,  # type: ignore[arg-type]
            completed_at=view.now,
            expires_at=view.now + 86_400 * SECOND,
            message=None,
            attempt_record="{}",
            **({"results": {"payload": 1}} if status == "completed" and not more else more),
        )
        ended = await self.services.work.finish(job_id, end)
        assert isinstance(ended, Ended)
        return ended.view

    async def was_read(self, job_id: str) -> None:
        """Wait until the job's results count as read."""

        async def read() -> bool:
            view = await self.services.jobs.read(job_id)
            assert isinstance(view, View)
            return view.job.read_at is not None

        await until(read)


async def until(condition: Callable[[], Any]) -> None:
    """Wait until the awaited `condition` comes true."""
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110  processes give no signal
            await asyncio.sleep(0.01)


Serve = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def serve(services: Services, stores: RunningStores, partitions: int, tmp_path: Path) -> Serve:
    """Return what runs an api process; settings by their environment names."""

    @asynccontextmanager
    async def serving(**environ: str) -> AsyncIterator[Served]:
        listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        settings = {
            "GATEWAY_PROFILE": "development",
            "GATEWAY_PUBLIC_URL": url,
            "GATEWAY_STORE_URL": stores.durable_url,
            "GATEWAY_STORE_PARTITIONS": str(partitions),
            "GATEWAY_BROKER_URL": stores.soft_url,
            "GATEWAY_ARTIFACTS_URL": f"file://{tmp_path}/artifacts",
            "GATEWAY_SEALING_KEYS": SEALING,
            "GATEWAY_BOOTSTRAP_API_KEY": KEY,
            "GATEWAY_API_FD": str(listener.fileno()),
            **environ,
        }
        log = tmp_path / "api.log"
        with listener, running(settings, listener.fileno(), log) as process:
            async with httpx.AsyncClient(
                base_url=url, headers=BEARER, timeout=20, trust_env=False
            ) as client:
                yield Served(url, process, log, services, client)

    return serving


@contextmanager
def running(
    settings: dict[str, str], listener: int, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "gateway", "api"]
    with (
        log.open("wb") as file,
        subprocess.Popen(
            command,
            env=environment() | settings,
            pass_fds=[listener],
            stdout=file,
            stderr=file,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture
async def served(serve: Serve) -> AsyncIterator[Served]:
    """Return a running api process with the settings of development."""
    async with serve() as served:
        yield served


async def messages(served: Served, path: str, **headers: str) -> AsyncIterator[Message]:
    """Yield the events of a stream until the server ends it."""
    async with served.client.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        parser = StreamParser()
        async for piece in answer.aiter_raw():
            for message in parser.feed(piece):
                yield message


def document(message: Message) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(message.data)
    return parsed


async def made_key(
    served: Served, *scopes: Scope, tenant: str = "default"
) -> tuple[str, dict[str, str]]:
    """Make a key; return its identifier and the header that carries it."""
    token, key = make_key(tenant, scopes, 0)
    await KeyStore(served.services.store).put(key)
    return key.id, {"Authorization": f"Bearer {token}"}


async def revoke(served: Served, key_id: str, headers: dict[str, str]) -> None:
    """Revoke a key, and wait until the process knows."""
    assert await KeyStore(served.services.store).revoke(key_id)

    async def is_refused() -> bool:
        return (await served.client.get("/v1/job-types", headers=headers)).status_code == 401

    await until(is_refused)
