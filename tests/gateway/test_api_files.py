"""Files uploaded by themselves: kept, served, expired; and used by jobs, which copy them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from config.clock import SECOND, parse_rfc3339
from config.ids import new_id, partition_of
from config.store import Store
from gateway.app import create_app
from gateway.files import PREFIX
from gateway.models import View
from gateway.services import Services
from tests.gateway.conftest import PUBLIC_URL, FullStore, Gateway, MakeServices
from tests.gateway.jobs import assert_problem, finish

DATA = b"%PDF-1.7 " + bytes(range(256))
DAY = 86_400 * SECOND


async def upload(client: httpx.AsyncClient, data: bytes = DATA, **headers: str) -> dict[str, Any]:
    """Upload a file and return its document."""
    answer = await client.post("/v1/files", content=data, headers=headers)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def files_in(folder: Path) -> list[str]:
    """Return every file that is kept, by its path."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return where the artifacts are."""
    return tmp_path / "artifacts"


@pytest.mark.parametrize("data", [b"", b"x", DATA, b"y" * (6 * 1024 * 1024)])
async def test_a_file_is_kept_as_it_was(
    client: httpx.AsyncClient, services: Services, folder: Path, data: bytes
) -> None:
    answer = await client.post(
        "/v1/files", content=data, headers={"Content-Type": "application/pdf; version=1.7"}
    )
    assert answer.status_code == 201
    made = answer.json()
    assert made == {
        "fileId": made["fileId"],
        "href": f"{PUBLIC_URL}/v1/files/{made['fileId']}",
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "contentType": "application/pdf; version=1.7",
        "expiresAt": made["expiresAt"],
    }
    assert answer.headers["location"] == made["href"]
    assert answer.headers["cache-control"] == "no-store"
    assert abs(parse_rfc3339(made["expiresAt"]) - services.clock.now() - DAY) < 60 * SECOND
    assert files_in(folder) == [f"files/{made['fileId']}/0"]
    served = await client.get(made["href"])
    assert (served.status_code, served.content) == (200, data)
    assert served.headers["content-type"] == "application/pdf; version=1.7"
    assert served.headers["etag"] == f'"{made["sha256"]}"'


async def test_ranges_and_head(client: httpx.AsyncClient) -> None:
    href = (await upload(client))["href"]
    part = await client.get(href, headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, DATA[2:5])
    assert part.headers["content-range"] == f"bytes 2-4/{len(DATA)}"
    head = await client.head(href)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(DATA))
    refused = await client.get(href, headers={"Range": f"bytes={len(DATA)}-"})
    assert_problem(refused, "range_not_satisfiable")


@pytest.mark.parametrize(
    ("query", "headers", "disposition"),
    [
        ("", {}, 'attachment; filename="file"'),
        ("?name=report.pdf", {}, 'attachment; filename="report.pdf"'),
        (
            "",
            {"Content-Disposition": 'attachment; filename="scan 1.pdf"'},
            'attachment; filename="scan 1.pdf"',
        ),
        (
            "?name=b.pdf",
            {"Content-Disposition": 'attachment; filename="a.pdf"'},
            'attachment; filename="b.pdf"',
        ),
        ("?name=%C3%BC%22%0D%0A", {}, "attachment; filename*=utf-8''%C3%BC%22%0D%0A"),
        ("?name=" + "x" * 300, {}, f'attachment; filename="{"x" * 255}"'),
    ],
)
async def test_what_a_file_is_called(
    client: httpx.AsyncClient, query: str, headers: dict[str, str], disposition: str
) -> None:
    made = await client.post(f"/v1/files{query}", content=b"x", headers=headers)
    served = await client.get(made.headers["location"])
    assert served.headers["content-disposition"] == disposition
    assert served.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("declared", ["", "text", "text/html\x80", "a/b; c"])
async def test_a_type_that_is_none_is_not_served(client: httpx.AsyncClient, declared: str) -> None:
    answer = await client.post(
        "/v1/files", content=b"x", headers=[(b"Content-Type", declared.encode("latin-1"))]
    )
    assert answer.json()["contentType"] == "application/octet-stream"


@pytest.mark.parametrize(
    "headers",
    [{"Content-Type": "multipart/form-data; boundary=x"}, {"Content-Encoding": "gzip"}],
)
async def test_bodies_that_are_no_file(
    client: httpx.AsyncClient, folder: Path, headers: dict[str, str]
) -> None:
    answer = await client.post("/v1/files", content=b"x", headers=headers)
    assert_problem(answer, "unsupported_media_type")
    assert files_in(folder) == []


@pytest.mark.parametrize("size", [1_001, 7 * 1024 * 1024])
async def test_too_large(make_services: MakeServices, folder: Path, size: int) -> None:
    services = make_services(GATEWAY_API_UPLOAD_LIMIT_BYTES=str(size - 1))
    gateway = Gateway(services, create_app(services))

    async def stream() -> AsyncIterator[bytes]:
        for at in range(0, size, 65_536):
            yield b"x" * min(65_536, size - at)

    async with await gateway.client() as client:
        assert_problem(await client.post("/v1/files", content=stream()), "body_too_large")
        assert_problem(await client.post("/v1/files", content=b"x" * size), "body_too_large")
        assert (await client.post("/v1/files", content=b"x" * (size - 1))).status_code == 201
    assert len(files_in(folder)) == 1


async def test_a_full_store_keeps_nothing(
    client: httpx.AsyncClient, folder: Path, full_store: FullStore
) -> None:
    async with full_store():
        assert_problem(await client.post("/v1/files", content=b"x"), "store_full")
    assert files_in(folder) == []


async def test_files_that_are_not_there(
    gateway: Gateway, client: httpx.AsyncClient, services: Services
) -> None:
    mine = await upload(client)
    for file_id in ("x", "file_99" + "0" * 22, new_id(PREFIX, 0, services.clock.now())):
        assert_problem(await client.get(f"/v1/files/{file_id}"), "not_found")
    async with await gateway.client(tenant="other") as other:
        assert_problem(await other.get(mine["href"]), "not_found")


# Expiry


async def age(store: Store, file_id: str) -> None:
    """Let the file's time be over."""
    prefix = f"gw:{{p{partition_of(file_id):02d}}}:"
    await store.client.hset(f"{prefix}f:{file_id}", "expiresAt", "1")
    await store.client.zadd(f"{prefix}files", {file_id: 1})


async def test_an_unused_file_goes(
    client: httpx.AsyncClient, services: Services, store: Store
) -> None:
    kept, gone = await upload(client), await upload(client)
    assert await services.files.expire(at_most=10) == []
    await age(store, gone["fileId"])
    assert await services.files.expire(at_most=10) == [gone["fileId"]]
    assert_problem(await client.get(gone["href"]), "not_found")
    # Until its bytes are said to be deleted it is found again, after a while.
    assert await services.files.expire(at_most=10) == []
    await age(store, gone["fileId"])
    await store.client.delete(f"gw:{{p{partition_of(gone['fileId']):02d}}}:f:{gone['fileId']}")
    assert await services.files.expire(at_most=10) == [gone["fileId"]]
    for each in (gone, kept):
        await services.files.forget(each["fileId"])
    prefixes = {f"gw:{{p{partition_of(each['fileId']):02d}}}:" for each in (gone, kept)}
    left = [
        member for each in prefixes for member in await store.client.zrange(f"{each}files", 0, -1)
    ]
    assert left == [kept["fileId"].encode()]


async def test_expiry_goes_by_steps(
    client: httpx.AsyncClient, services: Services, store: Store, partitions: int
) -> None:
    made = [(await upload(client, b"x"))["fileId"] for _ in range(12)]
    for file_id in made:
        await age(store, file_id)
    found: list[str] = []
    while step := await services.files.expire(at_most=2):
        assert len(step) <= 2 * partitions
        found += step
        for file_id in step:
            await services.files.forget(file_id)
    assert sorted(found) == sorted(made)


# Use


async def test_a_job_has_its_own_copy(
    client: httpx.AsyncClient, services: Services, store: Store
) -> None:
    made = await upload(client, b"some text", **{"Content-Type": "text/plain"})
    file_id = made["fileId"]
    request = {"type": "document.analyze", "input": {"document": {"fileId": file_id}}}
    first, second = [await client.post("/v1/jobs", json=request) for _ in range(2)]
    assert first.status_code == second.status_code == 202
    await age(store, file_id)
    await services.files.expire(at_most=10)
    await services.artifacts.delete_prefix(f"files/{file_id}")
    await finish(services, first.json()["jobId"])
    assert (await client.delete(f"/v1/jobs/{first.json()['jobId']}")).status_code == 204
    view = await services.jobs.read(second.json()["jobId"])
    assert isinstance(view, View)
    kept = view.job.files[file_id]
    assert (kept.content_type, kept.sha256) == ("text/plain", made["sha256"])
    assert kept.path == f"jobs/{view.job.id}/in/0"
    assert await services.artifacts.read(kept.path, 100) == b"some text"


async def test_use_begins_a_files_life_anew(
    client: httpx.AsyncClient, services: Services, store: Store
) -> None:
    file_id = (await upload(client))["fileId"]
    await age(store, file_id)
    request = {"type": "document.analyze", "input": {"document": {"fileId": file_id}}}
    assert (await client.post("/v1/jobs", json=request)).status_code == 202
    assert await services.files.expire(at_most=10) == []
    found = await services.files.find(file_id, "acme")
    assert found is not None
    assert abs(found.expires_at - services.clock.now() - DAY) < 60 * SECOND


async def test_files_a_job_cannot_have(
    gateway: Gateway, client: httpx.AsyncClient, services: Services, folder: Path
) -> None:
    file_id = (await upload(client))["fileId"]
    fresh = new_id(PREFIX, 0, services.clock.now())
    headers = {"Idempotency-Key": "one"}
    async with await gateway.client(tenant="other") as other:
        for who, wanted in ((other, file_id), (client, fresh), (client, "x"), (client, "job_00")):
            request = {"type": "document.analyze", "input": {"document": {"fileId": wanted}}}
            answer = await who.post("/v1/jobs", json=request, headers=headers)
            body = assert_problem(answer, "invalid_input")
            assert [fault["pointer"] for fault in body["errors"]] == ["/input/document"]
    assert files_in(folder) == [f"files/{file_id}/0"]
    good = {"type": "document.analyze", "input": {"document": {"fileId": file_id}}}
    assert (await client.post("/v1/jobs", json=good, headers=headers)).status_code == 202


@pytest.mark.parametrize("named", [{}, {"part": "a", "fileId": "b"}, {"fileId": 1}])
async def test_a_reference_names_one_file(
    client: httpx.AsyncClient, named: dict[str, object]
) -> None:
    request = {"type": "document.analyze", "input": {"document": named}}
    assert_problem(await client.post("/v1/jobs", json=request), "invalid_input")


async def test_the_same_key_after_the_file_went(
    client: httpx.AsyncClient, services: Services, store: Store
) -> None:
    file_id = (await upload(client))["fileId"]
    request = {"type": "document.analyze", "input": {"document": {"fileId": file_id}}}
    headers = {"Idempotency-Key": "one"}
    first = await client.post("/v1/jobs", json=request, headers=headers)
    await age(store, file_id)
    await services.files.expire(at_most=10)
    again = await client.post("/v1/jobs", json=request, headers=headers)
    assert again.status_code == 202
    assert again.json()["jobId"] == first.json()["jobId"]
