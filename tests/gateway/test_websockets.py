"""Watching jobs by WebSocket at a real server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from config.ids import new_id, partition_of
from config.scripts import partition_prefix
from config.store import Store
from gateway.api.streams import origin_allowed
from gateway.auth import SCOPES
from tests.gateway.served import BEARER, Serve, Served, made_key, revoke


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
        ("/v1/jobs", BEARER, None, 404),
        ("/nowhere", {}, "https://elsewhere.example", 404),
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
