"""How many bytes are kept for a tenant: counted by the store in every transition, and bounded."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from config.clock import SECOND
from config.ids import partition_of
from config.scripts import partition_prefix
from config.store import Store
from gateway.admission import Admission
from gateway.app import create_app
from gateway.services import Services
from tests.gateway.conftest import Gateway, MakeServices
from tests.gateway.jobs import ECHO, assert_problem, finish, save, submit

LIMIT = 10_000
DOCUMENT = {"type": "document.analyze", "input": {"document": {"part": "f"}}}


@pytest.fixture
def tight(make_services: MakeServices) -> Services:
    """Return services that keep 10,000 bytes for each tenant."""
    return make_services(GATEWAY_ARTIFACTS_MAX_BYTES_PER_TENANT=str(LIMIT))


@pytest.fixture
def admission(tight: Services) -> Admission:
    """Return the gauge of those."""
    return Admission(tight.jobs, tight.settings, tight.clock)


@pytest.fixture
async def tenant(tight: Services, admission: Admission) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the tenant acme."""
    async with await Gateway(tight, create_app(tight, admission)).client() as client:
        yield client


async def kept(services: Services, tenant: str = "acme") -> int:
    """Return how many bytes the store has counted."""
    _, own = await services.jobs.backlog([tenant])
    return own[tenant].kept


async def upload(client: httpx.AsyncClient, size: int) -> httpx.Response:
    return await client.post("/v1/files", content=b"x" * size)


def form(job: object, size: int) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [
        ("job", ("job.json", json.dumps(job).encode(), "application/json")),
        ("f", ("f.txt", b"x" * size, "text/plain")),
    ]


def on_disk(folder: Path) -> int:
    """Return how many bytes are kept in fact."""
    return sum(each.stat().st_size for each in (folder / "artifacts").rglob("*") if each.is_file())


async def test_every_byte_is_counted_from_its_coming_to_its_going(
    tenant: httpx.AsyncClient, tight: Services, store: Store, tmp_path: Path
) -> None:
    file_id = (await upload(tenant, 1_000)).json()["fileId"]
    assert await kept(tight) == 1_000
    job = (await tenant.post("/v1/jobs", files=form(DOCUMENT, 500))).json()["jobId"]
    assert await kept(tight) == 1_500
    copied = {"type": "document.analyze", "input": {"document": {"fileId": file_id}}}
    other = (await tenant.post("/v1/jobs", json=copied)).json()["jobId"]
    assert await kept(tight) == 2_500 == on_disk(tmp_path)

    made = await save(tight, job, "report.pdf", b"y" * 700)
    await finish(tight, job, artifacts={made.name: made})
    assert await kept(tight) == 3_200 == on_disk(tmp_path)
    await finish(tight, other, status="failed")
    again = (await tenant.post(f"/v1/jobs/{other}/retry")).json()["jobId"]
    assert await kept(tight) == 4_200 == on_disk(tmp_path)
    await finish(tight, again)

    for each in (job, other, again):
        assert (await tenant.delete(f"/v1/jobs/{each}")).status_code == 204
    assert await kept(tight) == 1_000 == on_disk(tmp_path)
    files = f"{partition_prefix(partition_of(file_id))}files"
    await store.client.zadd(files, {file_id: 1})
    assert await tight.files.expire(at_most=10) == [file_id]
    assert await kept(tight) == 0
    assert await store.client.keys("*:space") == []


async def test_a_large_input_counts(tenant: httpx.AsyncClient, tight: Services) -> None:
    await submit(tenant, input={"payload": "x" * 20_000})
    assert await kept(tight) > 20_000


async def test_what_is_full_takes_no_more(
    tenant: httpx.AsyncClient, tight: Services, admission: Admission, tmp_path: Path
) -> None:
    assert (await upload(tenant, 6_000)).status_code == 201
    assert_problem(await upload(tenant, 6_000), "no_space_left")
    assert_problem(await tenant.post("/v1/jobs", files=form(DOCUMENT, 6_000)), "no_space_left")
    answer = await tenant.post("/api/documents", files=[("document", ("a", b"x" * 6_000))])
    assert_problem(answer, "no_space_left")
    assert on_disk(tmp_path) == 6_000

    second = (await upload(tenant, 3_999)).json()["fileId"]
    copied = {"type": "document.analyze", "input": {"document": {"fileId": second}}}
    assert_problem(await tenant.post("/v1/jobs", json=copied), "no_space_left")
    assert on_disk(tmp_path) == 9_999
    assert (await upload(tenant, 1)).status_code == 201
    assert_problem(await upload(tenant, 0), "no_space_left")
    assert_problem(await tenant.post("/v1/jobs", json=ECHO), "no_space_left")
    await admission.poll()
    assert_problem(await tenant.post("/v1/jobs", json=ECHO), "no_space_left")
    async with await Gateway(tight, create_app(tight, admission)).client("other") as other:
        assert (await upload(other, LIMIT - 1)).status_code == 201
        await submit(other, **ECHO)


async def test_room_comes_back_when_jobs_are_erased(
    tenant: httpx.AsyncClient, tight: Services, admission: Admission
) -> None:
    job = (await tenant.post("/v1/jobs", files=form(DOCUMENT, LIMIT))).json()["jobId"]
    assert_problem(await tenant.post("/v1/jobs", json=ECHO), "no_space_left")
    await finish(tight, job, status="failed")
    assert_problem(await tenant.post(f"/v1/jobs/{job}/retry"), "no_space_left")
    await tenant.delete(f"/v1/jobs/{job}")
    await admission.poll()
    assert (await tenant.post("/v1/jobs", json=ECHO)).status_code == 202


async def test_what_is_refused_otherwise_says_so(tenant: httpx.AsyncClient) -> None:
    refused = await tenant.post("/v1/jobs", files=form({**DOCUMENT, "type": "no.such"}, 10))
    assert_problem(refused, "unknown_job_type")


async def test_a_job_that_is_kept_twice_counts_once(
    tenant: httpx.AsyncClient, tight: Services
) -> None:
    keyed = {"Idempotency-Key": "one"}
    for _ in range(2):
        answer = await tenant.post("/v1/jobs", files=form(DOCUMENT, 500), headers=keyed)
        assert answer.status_code == 202
    assert await kept(tight) == 500
    view = await tight.work.claim(answer.json()["jobId"], "claim", lease=30 * SECOND)
    assert view is not None
    assert view.job.given == 500
