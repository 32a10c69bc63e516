"""Files that jobs made, whole and in ranges."""

from __future__ import annotations

import httpx
import pytest

from gateway.services import Services
from tests.gateway.jobs import REPORT, assert_problem, finish_report


@pytest.fixture
async def report(client: httpx.AsyncClient, services: Services) -> str:
    """Return the URL of a finished job's report."""
    return await finish_report(client, services)


async def test_an_artifact(client: httpx.AsyncClient, report: str) -> None:
    answer = await client.get(report)
    assert answer.status_code == 200
    assert answer.content == REPORT
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["content-length"] == str(len(REPORT))
    assert answer.headers["content-disposition"] == 'attachment; filename="report.pdf"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["accept-ranges"] == "bytes"
    again = await client.get(report, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    ("header", "start", "end"), [("bytes=0-3", 0, 4), ("bytes=9-", 9, 265), ("bytes=-6", 259, 265)]
)
async def test_a_range(
    client: httpx.AsyncClient, report: str, header: str, start: int, end: int
) -> None:
    answer = await client.get(report, headers={"Range": header})
    assert answer.status_code == 206
    assert answer.content == REPORT[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(REPORT)}"
    assert answer.headers["content-length"] == str(end - start)


@pytest.mark.parametrize(
    "headers", [{"Range": "bytes=0-1,3-4"}, {"Range": "bytes=0-3", "If-Range": '"other"'}]
)
async def test_ranges_that_get_the_whole(
    client: httpx.AsyncClient, report: str, headers: dict[str, str]
) -> None:
    answer = await client.get(report, headers=headers)
    assert (answer.status_code, answer.content) == (200, REPORT)


async def test_a_range_outside(client: httpx.AsyncClient, report: str) -> None:
    answer = await client.get(report, headers={"Range": f"bytes={len(REPORT)}-"})
    assert_problem(answer, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(REPORT)}"


async def test_no_such_artifact(client: httpx.AsyncClient, report: str) -> None:
    for name in ("other.pdf", "..%2f..%2fetc%2fpasswd"):
        answer = await client.get(report.replace("report.pdf", name))
        assert_problem(answer, "not_found")


async def test_bytes_that_are_lost(
    client: httpx.AsyncClient, services: Services, report: str
) -> None:
    job_id = report.split("/")[-3]
    await services.artifacts.delete_prefix(f"jobs/{job_id}")
    assert_problem(await client.get(report), "artifacts_unavailable")
