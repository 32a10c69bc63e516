"""The documentation page: whole without any other host, under a policy that sees to that."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.gateway.conftest import Gateway
from tests.gateway.jobs import assert_problem

PAGES = Path(__file__).resolve().parents[2] / "gateway" / "pages"


@pytest.fixture
def partitions() -> int:
    """One will do: nothing here is kept."""
    return 1


@pytest.fixture
async def anyone(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client without credentials."""
    async with gateway.anyone() as client:
        yield client


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/docs", "text/html; charset=utf-8"),
        ("/docs/docs.css", "text/css; charset=utf-8"),
        ("/docs/docs.js", "text/javascript; charset=utf-8"),
        ("/openapi.json", "application/json"),
    ],
)
async def test_anyone_may_read_it(anyone: httpx.AsyncClient, path: str, media_type: str) -> None:
    answer = await anyone.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    again = await anyone.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_the_page_needs_what_is_there_and_nothing_else(anyone: httpx.AsyncClient) -> None:
    page = await anyone.get("/docs")
    wanted = re.findall(r'(?:src|href)="([^"#]*)"', page.text)
    wanted = [each for each in wanted if each != "data:,"]
    assert {"docs/docs.css", "docs/docs.js", "openapi.json"} == set(wanted)
    for each in wanted:
        assert (await anyone.get(page.url.join(each).path)).status_code == 200


async def test_the_policy_lets_nothing_in(anyone: httpx.AsyncClient) -> None:
    answer = await anyone.get("/docs")
    policy = answer.headers.get_list("content-security-policy")[0]
    sources = dict(each.strip().split(" ", 1) for each in policy.split(";"))
    assert sources.pop("img-src") == "'self' data:"
    assert sources.pop("default-src") == "'none'"
    assert {sources.pop(name) for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert set(sources.values()) == {"'none'"}
    # What the policy would stop, or what would make it pointless.
    assert "style=" not in answer.text
    assert re.search(r"<script[^>]*>[^<]", answer.text) is None


@pytest.mark.parametrize("page", sorted(PAGES.iterdir()), ids=lambda path: path.name)
def test_no_file_names_another_host(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.search(r"https?://", text) is None
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\b", text)


async def test_what_is_not_there_is_a_problem(anyone: httpx.AsyncClient) -> None:
    for name in ("docs.html", "..%2Fapp.py", "none.js"):
        assert_problem(await anyone.get(f"/docs/{name}"), "not_found")
