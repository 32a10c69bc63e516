"""Watching jobs at a real server: event streams, WebSockets, held back answers, tickets."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    aclosing,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from config.clock import SECOND
from config.ids import new_id, partition_of
from config.settings import environment
from config.store import Store, partition_prefix
from gateway.api.eventstream import event_names, last_event_id
from gateway.api.streams import origin_allowed
from gateway.auth import SCOPES, Scope, make_key
from gateway.client.stream import Message, StreamParser
from gateway.keys import KeyStore
from gateway.models import Job, StoredFile, View
from gateway.services import Services
from gateway.work import End, Ended, Report
from tests.conftest import RunningStores
from tests.gateway.conftest import SEALING
from tests.gateway.jobs import ECHO
from tests.gateway.stream_load import StreamLoad, resident_bytes
from tests.processes import eventually

KEY = "key-of-the-tests"
BEARER = {"Authorization": f"Bearer {KEY}"}
LARGE = 12 * 2**20


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


# Event streams


async def test_a_stream_tells_the_state_the_progress_and_the_end(served: Served) -> None:
    job_id = await served.submit()
    told = []
    async for message in messages(served, f"/v1/jobs/{job_id}/events"):
        told.append(message)
        seen = document(message)
        if message.event == "snapshot":
            await served.claim(job_id)
        elif seen["status"] == "processing" and seen["progress"] == 0:
            await served.report(job_id, 40)
        elif seen["status"] == "processing":
            await served.finish(job_id)
    names = [message.event for message in told]
    assert names == ["snapshot", "progress", "progress", "completed"]
    numbers = [int(message.id or 0) for message in told]
    assert numbers == sorted(set(numbers))
    end = document(told[-1])
    assert end["results"] == {"payload": 1}
    status = await served.client.get(f"/v1/jobs/{job_id}", params={"onComplete": "inline"})
    assert end == status.json()


async def test_a_revoked_key_is_told_nothing_more(served: Served) -> None:
    job_id = await served.submit()
    key_id, headers = await made_key(served, "read")
    told = []
    async for message in messages(served, f"/v1/jobs/{job_id}/events", **headers):
        told.append(message.event)
        await revoke(served, key_id, headers)
        await served.finish(job_id)
    assert told == ["snapshot"]


async def test_a_ticket_stays_good_for_a_stream_that_it_opened(served: Served) -> None:
    job_id = await served.submit()
    key_id, headers = await made_key(served, "read")
    made = await served.client.post(f"/v1/jobs/{job_id}/ticket", headers=headers)
    told = []
    async for message in messages(served, made.json()["eventsUrl"].removeprefix(served.url)):
        told.append(message.event)
        if message.event == "snapshot":
            await revoke(served, key_id, headers)
            await served.finish(job_id)
    assert told[-1] == "completed"


async def test_the_head_of_a_stream(served: Served) -> None:
    job_id = await served.submit()
    path = f"/v1/jobs/{job_id}/events"
    async with served.client.stream("GET", path) as answer:
        first = await anext(aiter(answer.aiter_raw()))
    assert first.startswith(b"retry: ")
    head = await served.client.head(path)
    assert head.content == b""
    for each in (answer, head):
        assert each.status_code == 200
        assert each.headers["content-type"] == "text/event-stream"
        assert each.headers["cache-control"] == "no-store"
        assert each.headers["x-accel-buffering"] == "no"
        assert "content-length" not in each.headers


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_the_end_is_told_to_whoever_comes_late_and_then_no_more(
    served: Served, status: str
) -> None:
    job_id = await served.submit()
    view = await served.finish(job_id, status)
    path = f"/v1/jobs/{job_id}/events"
    told = [message async for message in messages(served, path)]
    assert [(each.event, each.id) for each in told] == [
        ("snapshot", None),
        (status, str(view.job.rev)),
    ]
    resumed = [message async for message in messages(served, path, **{"Last-Event-ID": "1"})]
    assert [each.event for each in resumed] == [status]
    for last in (view.job.rev, view.job.rev + 1):
        answer = await served.client.get(path, headers={"Last-Event-ID": str(last)})
        assert (answer.status_code, answer.content) == (204, b"")


async def test_a_stream_that_carried_the_results_counts_as_reading(served: Served) -> None:
    job_id = await served.submit()
    view = await served.finish(job_id)
    await served.client.head(f"/v1/jobs/{job_id}/events")
    unread = await served.services.jobs.read(job_id)
    assert isinstance(unread, View)
    assert unread.job.read_at is None
    async for _ in messages(served, f"/v1/jobs/{job_id}/events"):
        pass
    await served.was_read(job_id)
    assert view.job.read_at is None


async def test_a_stream_is_resumed_after_what_was_seen(served: Served) -> None:
    job_id = await served.submit()
    view = await served.claim(job_id)
    path = f"/v1/jobs/{job_id}/events"
    known = {"Last-Event-ID": str(view.job.rev)}
    async with aclosing(messages(served, path, **known)) as told:  # type: ignore[type-var]
        following = asyncio.ensure_future(anext(told))
        async with aclosing(messages(served, path)) as others:  # type: ignore[type-var]
            assert (await anext(others)).event == "snapshot"
        assert not following.done()
        await served.report(job_id, 10)
        message = await following
    assert (message.event, message.id) == ("progress", str(view.job.rev + 1))
    for odd in ("0", "junk", "-1", "9" * 40, str(view.job.rev + 7)):
        async with aclosing(messages(served, path, **{"Last-Event-ID": odd})) as told:  # type: ignore[type-var]
            assert (await anext(told)).event == ("progress" if odd == "0" else "snapshot")


async def test_lost_connections_to_the_store_lose_nothing(served: Served, store: Store) -> None:
    job_id = await served.submit()
    await served.claim(job_id)
    step = 0
    async for message in messages(served, f"/v1/jobs/{job_id}/events"):
        if message.event == "completed":
            break
        if document(message)["progress"] != step:
            continue
        await store.client.client_kill_filter(_type="pubsub", skipme=True)
        step += 1
        if step < 6:
            await served.report(job_id, step)
        else:
            await served.finish(job_id)
    assert message.event == "completed"


async def test_silence_is_filled_with_comments(serve: Serve) -> None:
    async with serve(GATEWAY_API_HEARTBEAT_SECONDS="0.05") as served:
        job_id = await served.submit()
        seen = b""
        async with served.client.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
            async for piece in answer.aiter_raw():
                seen += piece
                if seen.count(b"\n: \n\n") >= 2:
                    break


async def test_a_stream_of_a_job_that_is_no_more_ends(served: Served, store: Store) -> None:
    job_id = await served.submit()
    prefix = partition_prefix(partition_of(job_id))
    names = []
    async for message in messages(served, f"/v1/jobs/{job_id}/events"):
        names.append(message.event)
        await store.client.delete(f"{prefix}j:{job_id}")
        await store.client.publish(f"{prefix}watch:{job_id}", "0")
    assert names == ["snapshot"]


async def test_streams_are_refused_as_problems(served: Served) -> None:
    job_id = await served.submit()
    for path, headers, status, code in (
        (f"/v1/jobs/{job_id}/events", {"Authorization": "Bearer wrong-key"}, 401, "unauthorized"),
        (f"/v1/jobs/{new_id('job', 0, 0)}/events", {}, 404, "not_found"),
        ("/v1/jobs/junk/events", {}, 404, "not_found"),
    ):
        answer = await served.client.get(path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
    await served.finish(job_id)
    await served.client.delete(f"/v1/jobs/{job_id}")
    answer = await served.client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "9"})
    assert (answer.status_code, answer.json()["code"]) == (410, "job_expired")


async def test_who_leaves_makes_room(serve: Serve) -> None:
    async with serve(GATEWAY_API_MAX_WATCHERS="1") as served:
        job_id = await served.submit()
        path = f"/v1/jobs/{job_id}"
        async with aclosing(messages(served, f"{path}/events")) as told:  # type: ignore[type-var]
            await anext(told)
            for refused in (
                await served.client.get(f"{path}/events"),
                await served.client.get(path, headers={"Prefer": "wait=9"}),
            ):
                assert (refused.status_code, refused.json()["code"]) == (503, "too_many_watchers")
                assert refused.headers["retry-after"] == "5"
            with pytest.raises(InvalidStatus) as denied:
                async with connect(served.socket_url(path), additional_headers=BEARER):
                    pass
            assert denied.value.response.status_code == 503
            kept = await served.client.post("/v1/jobs", json=ECHO, headers={"Prefer": "wait=9"})
            assert kept.status_code == 202
            assert "preference-applied" not in kept.headers

        async def is_held() -> bool:
            try:
                answer = await served.client.get(path, headers={"Prefer": "wait=30"}, timeout=0.5)
            except httpx.ReadTimeout:
                return True
            assert answer.json()["code"] == "too_many_watchers"
            return False

        # The stream has left, and then the poll that gave up.
        await until(is_held)
        await until(is_held)


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


async def test_stopping_ends_everything_in_order(served: Served) -> None:
    job_id = await served.submit()
    view = await served.services.jobs.read(job_id)
    assert isinstance(view, View)
    path = f"/v1/jobs/{job_id}"
    async with (
        connect(served.socket_url(path), additional_headers=BEARER) as websocket,
        aclosing(messages(served, f"{path}/events")) as told,  # type: ignore[type-var]
    ):
        await websocket.recv()
        assert (await anext(told)).id == str(view.job.rev)
        waiting = asyncio.create_task(served.client.get(path, headers={"Prefer": "wait=30"}))
        # Once another has been answered after it, it waits.
        await served.client.head(path)
        served.process.send_signal(signal.SIGTERM)
        assert [each async for each in told] == []
        with pytest.raises(ConnectionClosed) as closed:
            await websocket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        answer = await waiting
        assert (answer.status_code, answer.json()["status"]) == (200, "pending")
    assert await asyncio.to_thread(served.process.wait, 20) == 0


# WebSockets


def dial(served: Served, path: str, **more: Any) -> connect:
    return connect(served.socket_url(path), additional_headers=BEARER, **more)


async def close_code(websocket: ClientConnection) -> int | None:
    await websocket.wait_closed()
    return websocket.close_code


@pytest.mark.parametrize("base", ["/v1/jobs/", "/jobs/"])
async def test_a_websocket_carries_the_documents_and_is_closed_after_the_end(
    served: Served, base: str
) -> None:
    job_id = await served.submit()
    seen = []
    async with dial(served, base + job_id) as websocket:
        async for frame in websocket:
            assert isinstance(frame, str)
            seen.append(json.loads(frame))
            match seen[-1]["status"], seen[-1]["progress"]:
                case "pending", _:
                    await served.claim(job_id)
                case "processing", 0:
                    await served.report(job_id, 50)
                case "processing", _:
                    await served.finish(job_id)
    assert [(each["status"], each["progress"]) for each in seen[:3]] == [
        ("pending", 0),
        ("processing", 0),
        ("processing", 50),
    ]
    assert seen[3]["results"] == {"payload": 1}
    assert await close_code(websocket) == 1000
    await served.was_read(job_id)
    assert not served.logged("WebSocket /")


async def test_a_websocket_of_a_revoked_key_is_closed(served: Served) -> None:
    job_id = await served.submit()
    key_id, headers = await made_key(served, "read")
    async with connect(
        served.socket_url(f"/v1/jobs/{job_id}"), additional_headers=headers
    ) as websocket:
        assert json.loads(await websocket.recv())["status"] == "pending"
        await revoke(served, key_id, headers)
        await served.finish(job_id)
        assert await close_code(websocket) == 1008


async def test_websockets_are_refused_before_the_upgrade(served: Served) -> None:
    job_id = await served.submit()
    erased = await served.submit()
    await served.finish(erased)
    await served.client.delete(f"/v1/jobs/{erased}")
    path = f"/v1/jobs/{job_id}"
    _, foreign = await made_key(served, *SCOPES, tenant="globex")
    _, unable = await made_key(served, *(SCOPES - {"read"}))
    other = await served.submit()
    ticket = (await served.client.post(f"/v1/jobs/{other}/ticket")).json()["ticket"]
    for target, headers, origin, status in (
        (path, foreign, None, 404),
        (path, unable, None, 403),
        (f"{path}?ticket={ticket}", {}, None, 401),
        (f"{path}?ticket={ticket}", foreign, None, 404),
        (path, {}, None, 401),
        (f"{path}?ticket=1.ffffffff.x", {}, None, 401),
        (path, {"Authorization": "Basic eA=="}, None, 401),
        (f"/v1/jobs/{new_id('job', 0, 0)}", BEARER, None, 404),
        (f"/jobs/{erased}", BEARER, None, 410),
        (path, BEARER, "https://elsewhere.example", 403),
        (path, BEARER, "null", 403),
    ):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(
                served.socket_url(target),
                additional_headers=headers,
                origin=origin,  # type: ignore[arg-type]
            ):
                pass
        answer = refused.value.response
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert json.loads(answer.body or b"")["status"] == status


async def test_pages_of_the_gateway_and_of_named_origins_may_connect(serve: Serve) -> None:
    async with serve(GATEWAY_API_WS_ORIGINS='["https://app.example"]') as served:
        job_id = await served.submit()
        for origin in ("https://app.example", served.url):
            async with dial(served, f"/v1/jobs/{job_id}", origin=origin) as websocket:
                await websocket.recv()


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "is_allowed"),
    [
        (None, "g.example", (), True),
        ("https://g.example", "inner:8080", (), True),
        ("http://localhost:8080", "localhost:8080", (), True),
        ("HTTPS://G.example", "inner", (), True),
        ("https://g.example:444", "inner", (), False),
        ("https://g.example.evil.example", "inner", (), False),
        ("https://evil.example", "g.example", (), False),
        ("https://evil.example", "g.example", ("https://app.example",), False),
        ("https://app.example", "g.example", ("https://app.example",), True),
        ("https://evil.example", "g.example", ("*",), True),
        ("null", "g.example", (), False),
        ("", "g.example", (), False),
    ],
)
def test_origins(origin: str | None, host: str, allowed: tuple[str, ...], is_allowed: bool) -> None:
    said = origin_allowed(origin, host=host, public_url="https://g.example/base", allowed=allowed)
    assert said is is_allowed


async def test_who_talks_on_a_websocket_is_closed(served: Served) -> None:
    job_id = await served.submit()
    async with dial(served, f"/v1/jobs/{job_id}") as websocket:
        await websocket.recv()
        await websocket.send("hello")
        await served.claim(job_id)
        assert json.loads(await websocket.recv())["status"] == "processing"
        for _ in range(20):
            await websocket.send("hello")
        assert await close_code(websocket) == 1008
    async with dial(served, f"/v1/jobs/{job_id}") as websocket:
        await websocket.send("x" * 5000)
        assert await close_code(websocket) == 1009


async def test_a_websocket_of_a_job_that_is_no_more_is_closed(served: Served, store: Store) -> None:
    job_id = await served.submit()
    prefix = partition_prefix(partition_of(job_id))
    async with dial(served, f"/v1/jobs/{job_id}") as websocket:
        await websocket.recv()
        await store.client.delete(f"{prefix}j:{job_id}")
        await store.client.publish(f"{prefix}watch:{job_id}", "0")
        assert await close_code(websocket) == 4410


# Tickets


async def test_a_ticket_opens_what_belongs_to_its_job(served: Served) -> None:
    job_id, other = await served.submit(), await served.submit()
    await served.finish(job_id)
    made = await served.client.post(f"/v1/jobs/{job_id}/ticket")
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    ticket = made.json()
    query = f"?ticket={ticket['ticket']}"
    assert ticket["url"] == f"{served.url}/v1/jobs/{job_id}{query}"
    async with httpx.AsyncClient(trust_env=False) as anyone:
        for name in ("url", "resultUrl", "eventsUrl"):
            assert (await anyone.get(ticket[name])).status_code in {200, 303}
        for path in (f"/v1/jobs/{other}/events", f"/v1/jobs/{other}"):
            assert (await anyone.get(served.url + path + query)).status_code == 401
        beget = await anyone.post(f"{served.url}/v1/jobs/{job_id}/ticket{query}")
        assert beget.status_code == 401
    async with connect(ticket["websocketUrl"]) as websocket:
        assert json.loads(await websocket.recv())["jobId"] == job_id
    assert not served.logged(ticket["ticket"])
    links = (await served.client.get(f"/v1/jobs/{other}")).json()["_links"]
    assert links["events"] == f"{served.url}/v1/jobs/{other}/events"
    assert links["websocket"] == served.socket_url(f"/v1/jobs/{other}")


# Answers that are held back


async def test_a_submission_may_wait_for_its_end(served: Served, store: Store) -> None:
    waiting = asyncio.create_task(
        served.client.post("/v1/jobs", json=ECHO, headers={"Prefer": "respond-async, wait=30"})
    )

    async def is_kept() -> bool:
        return bool(await store.client.keys("gw:{p*}:j:*"))

    await until(is_kept)
    [key] = await store.client.keys("gw:{p*}:j:*")
    assert isinstance(key, bytes)
    job_id = key.decode().rpartition(":")[2]
    await served.finish(job_id)
    answer = await waiting
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=30"
    assert "retry-after" not in answer.headers
    assert answer.json()["results"] == {"payload": 1}
    await served.was_read(job_id)


@pytest.mark.parametrize(("prefer", "applied"), [("wait=1", "wait=1"), ("wait=0", "wait=0")])
async def test_a_submission_waits_no_longer_than_it_is_told(
    served: Served, prefer: str, applied: str
) -> None:
    answer = await served.client.post("/v1/jobs", json=ECHO, headers={"Prefer": prefer})
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == applied
    assert answer.headers["retry-after"]


async def test_a_poll_waits_for_the_end(served: Served) -> None:
    job_id = await served.submit()
    path = f"/v1/jobs/{job_id}"
    waiting = asyncio.create_task(served.client.get(path, headers={"Prefer": "wait=99"}))
    await served.claim(job_id)
    await served.report(job_id, 10)
    await served.finish(job_id)
    answer = await waiting
    assert answer.status_code == 303
    assert answer.headers["preference-applied"] == "wait=30"
    assert answer.json()["status"] == "completed"


async def test_a_held_back_answer_is_none_for_a_revoked_key(served: Served) -> None:
    job_id = await served.submit()
    key_id, headers = await made_key(served, "read")
    waiting = asyncio.create_task(
        served.client.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=30", **headers})
    )
    await revoke(served, key_id, headers)
    await served.finish(job_id)
    assert (await waiting).status_code == 401


async def test_a_poll_that_knows_a_version_waits_for_another(served: Served) -> None:
    job_id = await served.submit()
    path = f"/v1/jobs/{job_id}"
    etag = (await served.client.get(path)).headers["etag"]
    known = {"Prefer": "wait=30", "If-None-Match": etag}
    waiting = asyncio.create_task(served.client.get(path, headers=known))
    await served.claim(job_id)
    answer = await waiting
    assert (answer.status_code, answer.json()["status"]) == (200, "processing")
    assert answer.headers["etag"] != etag
    at_once = await served.client.get(path, headers=known)
    assert at_once.headers["etag"] == answer.headers["etag"]
    unchanged = await served.client.get(
        path, headers={"Prefer": "wait=1", "If-None-Match": answer.headers["etag"]}
    )
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert unchanged.headers["preference-applied"] == "wait=1"


async def test_a_poll_that_waits_in_vain_tells_how_the_job_stands(served: Served) -> None:
    job_id = await served.submit()
    await served.claim(job_id)
    waiting = asyncio.create_task(
        served.client.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=1"})
    )
    await served.report(job_id, 30)
    answer = await waiting
    assert (answer.status_code, answer.json()["progress"]) == (200, 30)
    assert answer.headers["retry-after"]


async def test_head_never_waits(served: Served) -> None:
    job_id = await served.submit()
    answer = await served.client.head(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=30"})
    assert answer.status_code == 200
    assert "preference-applied" not in answer.headers


# Rules

JOB = Job(id="job", tenant="t", type="x", status="processing", rev=7, result_ttl=3600 * SECOND)
DONE = replace(JOB, status="completed", expires_at=10_000 * SECOND)


@pytest.mark.parametrize(
    ("job", "now", "is_first", "names"),
    [
        (JOB, 0, True, [("snapshot", 7)]),
        (JOB, 0, False, [("progress", 7)]),
        (DONE, 0, True, [("snapshot", None), ("completed", 7)]),
        (DONE, 0, False, [("completed", 7)]),
        (DONE, 9_100, False, [("expiring", None), ("completed", 7)]),
        (replace(DONE, read_at=1), 9_100, False, [("completed", 7)]),
        (replace(DONE, status="failed"), 9_100, False, [("failed", 7)]),
    ],
)
def test_events(job: Job, now: int, is_first: bool, names: list[tuple[str, int | None]]) -> None:
    view = View(job=job, callback=None, now=now * SECOND)
    assert event_names(view, is_first=is_first) == names


@pytest.mark.parametrize(
    ("header", "revision"),
    [
        (None, None),
        ("", None),
        ("7", 7),
        ("07", 7),
        ("-7", None),
        ("7 ", None),
        ("٧", None),
        ("9" * 16, None),
    ],
)
def test_last_event_ids(header: str | None, revision: int | None) -> None:
    assert last_event_id(header) == revision


# Many


@pytest.mark.parametrize("partitions", [1], ids=["one-partition"], indirect=True)
async def test_five_hundred_streams_cost_little_memory(served: Served) -> None:
    load = StreamLoad(served.url, KEY)
    job_ids = [await served.submit() for _ in range(10)]
    before = resident_bytes(served.process.pid)

    async def work() -> None:
        for job_id in job_ids:
            await served.claim(job_id)
            for percent in range(10, 100, 30):
                await served.report(job_id, percent)
            await served.finish(job_id)

    ended = await load.run(job_ids, clients=500, work=work)
    assert ended == {"completed": 500}
    assert resident_bytes(served.process.pid) - before < 64 * 2**20
