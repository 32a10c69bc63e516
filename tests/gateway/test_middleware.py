"""What is on every answer, whose requests are believed, and how many are in hand."""

from __future__ import annotations

import asyncio
import logging
from ipaddress import ip_network

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send

from config.log import Subjects
from config.sections import ApiSettings
from gateway.app import create_app
from gateway.middleware import Edge, client_of, request_id
from gateway.problems import Problem
from tests.gateway.conftest import PUBLIC_URL, Gateway, MakeServices
from tests.gateway.jobs import ECHO, assert_problem, submit

PAGE = "https://app.example"


@pytest.mark.parametrize("given_id", ["a", "req_1", "9f8e/7:6.5-4=+_", "x" * 128])
def test_a_well_formed_identifier_is_kept(given_id: str) -> None:
    assert request_id(given_id) == given_id


@pytest.mark.parametrize(
    "given_id", [None, "", "x" * 129, "a b", "ümlaut", 'a"b', "a\x1b[0m", "-a"]
)
def test_any_other_is_replaced(given_id: str | None) -> None:
    made = request_id(given_id)
    assert made.startswith("req_")
    assert request_id(made) == made
    assert request_id(given_id) != made


PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["192.0.2.7, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["192.0.2.7", "198.51.100.1,10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("fd00::1", ["2001:db8::1"], "2001:db8::1"),
        ("not an address", ["198.51.100.1"], "not an address"),
    ],
)
def test_who_a_proxy_speaks_for(peer: str, forwarded: list[str], client: str) -> None:
    assert client_of(peer, forwarded, PROXIES) == client


@given(st.lists(st.text()))
def test_nothing_forwarded_is_a_fault_of_ours(forwarded: list[str]) -> None:
    assert client_of("203.0.113.9", forwarded, PROXIES) == "203.0.113.9"
    client_of("10.0.0.1", forwarded, PROXIES)


async def test_every_answer_is_protected(gateway: Gateway, client: httpx.AsyncClient) -> None:
    for path in ("/v1/jobs", "/v1/jobs/x", "/livez", "/nothing", "/problems/not_found"):
        answer = await client.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert answer.headers["x-request-id"].startswith("req_")
        assert "access-control-allow-origin" not in answer.headers
        assert len(answer.headers.get_list("x-content-type-options")) == 1


async def test_pages_are_in_nobodys_frame(client: httpx.AsyncClient) -> None:
    answer = await client.get("/problems/not_found")
    policies = answer.headers.get_list("content-security-policy")
    assert "frame-ancestors 'none'" in policies
    assert len(policies) == 2
    assert answer.headers["x-frame-options"] == "DENY"


async def test_plain_http_promises_no_https(make_services: MakeServices) -> None:
    services = make_services(GATEWAY_PUBLIC_URL="http://127.0.0.1:8080")
    async with Gateway(services, create_app(services)).anyone() as anyone:
        assert "strict-transport-security" not in (await anyone.get("/livez")).headers


async def test_an_unforeseen_error_passes_through_too(
    gateway: Gateway, client: httpx.AsyncClient
) -> None:
    job_id = await submit(client)
    store = gateway.services.store.client
    async for key in store.scan_iter(f"*{job_id}*"):
        await store.delete(key)
        await store.set(key, "not a hash")
    answer = await client.get(f"/v1/jobs/{job_id}", headers={"X-Request-Id": "mine-1"})
    assert_problem(answer, "internal_error")
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_json_ends_with_a_newline(client: httpx.AsyncClient) -> None:
    for answer in (await client.post("/v1/jobs", json=ECHO), await client.get("/v1/jobs/x")):
        assert answer.content.endswith(b"}\n")
        assert int(answer.headers["content-length"]) == len(answer.content)


# Browsers


@pytest.fixture
def opened(make_services: MakeServices) -> Gateway:
    """Return an application that a page may use."""
    services = make_services(GATEWAY_API_CORS_ORIGINS=f'["{PAGE}"]')
    return Gateway(services, create_app(services))


async def test_a_page_may_read_answers(opened: Gateway) -> None:
    async with await opened.client() as client:
        answer = await client.get("/v1/jobs", headers={"Origin": PAGE})
        refused = await client.get("/v1/jobs/x", headers={"Origin": PAGE})
        stranger = await client.get("/v1/jobs", headers={"Origin": "https://evil.example"})
        nobody = await client.get("/v1/jobs")
    for each in (answer, refused):
        assert each.headers["access-control-allow-origin"] == PAGE
        exposed = set(each.headers["access-control-expose-headers"].split(", "))
        assert exposed >= {
            "Location",
            "Retry-After",
            "ETag",
            "Link",
            "RateLimit",
            "RateLimit-Policy",
            "Preference-Applied",
            "Idempotent-Replayed",
            "Content-Range",
        }
        assert "access-control-allow-credentials" not in each.headers
    for each in (answer, refused, stranger, nobody):
        assert "Origin" in each.headers["vary"]
    for each in (stranger, nobody):
        assert "access-control-allow-origin" not in each.headers


async def test_a_preflight_needs_no_credentials(opened: Gateway) -> None:
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
    }
    async with opened.anyone() as anyone:
        answer = await anyone.options("/v1/jobs", headers=asked)
        stranger = await anyone.options(
            "/v1/jobs", headers={**asked, "Origin": "https://evil.example"}
        )
        plain = await anyone.options("/v1/jobs")
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "POST" in answer.headers["access-control-allow-methods"].split(", ")
    allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
    assert set(allowed) >= {"authorization", "content-type", "idempotency-key", "prefer"}
    for each in (stranger, plain):
        assert each.status_code == 204
        assert "POST" in each.headers["allow"]
        assert "access-control-allow-methods" not in each.headers


async def test_any_page_may_be_let_in(make_services: MakeServices) -> None:
    services = make_services(GATEWAY_API_CORS_ORIGINS='["*"]')
    async with Gateway(services, create_app(services)).anyone() as anyone:
        answer = await anyone.get("/livez", headers={"Origin": PAGE})
    assert answer.headers["access-control-allow-origin"] == "*"


# The edge by itself


def an_edge(
    make_services: MakeServices, app: Handler, public_url: str = PUBLIC_URL, **environ: str
) -> Edge:
    """Return an edge before `app`."""
    api: ApiSettings = make_services(**environ).settings.api

    def refuse(_scope: Scope, problem: Problem) -> Response:
        headers = {**problem.headers, "Content-Type": "application/problem+json"}
        return Response(problem.code, problem.status, headers)

    return Edge(app, api=api, public_url=public_url, refuse=refuse)


class Handler:
    """An application that shows what reaches it, and holds requests until it is told."""

    def __init__(self) -> None:
        self.entered = asyncio.Semaphore(0)
        self.go_on = asyncio.Event()
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer when told to; a path that ends in `stream` answers first and stays."""
        self.scopes.append(scope)
        self.entered.release()
        if scope["path"].endswith("stream"):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await self.go_on.wait()
            await send({"type": "http.response.body", "body": b""})
            return
        if scope["path"].endswith("body"):
            try:
                body = await Request(scope, receive).body()
            except ClientDisconnect:
                body = b"nobody there"
            await HTMLResponse(body)(scope, receive, send)
            return
        await self.go_on.wait()
        await Response("done")(scope, receive, send)


def speaking_to(edge: Edge, address: str = "203.0.113.9") -> httpx.AsyncClient:
    """Return a client whose requests come from `address`."""
    transport = httpx.ASGITransport(app=edge, client=(address, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


async def test_so_many_requests_are_in_hand(make_services: MakeServices) -> None:
    handler = Handler()
    edge = an_edge(make_services, handler, GATEWAY_API_MAX_CONCURRENT_REQUESTS="2")
    async with speaking_to(edge) as client:
        waiting = [asyncio.create_task(client.get("/wait")) for _ in range(2)]
        for _ in waiting:
            await handler.entered.acquire()
        refused = await client.get("/wait")
        assert (refused.status_code, refused.text) == (503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["x-content-type-options"] == "nosniff"
        probe = asyncio.create_task(client.get("/livez"))
        await handler.entered.acquire()
        handler.go_on.set()
        assert [(await each).status_code for each in [*waiting, probe]] == [200] * 3
        assert (await client.get("/wait")).status_code == 200


async def test_a_stream_that_has_begun_is_not_in_hand(make_services: MakeServices) -> None:
    handler = Handler()
    edge = an_edge(make_services, handler, GATEWAY_API_MAX_CONCURRENT_REQUESTS="1")
    async with speaking_to(edge) as client:
        streams = [asyncio.create_task(client.get("/stream")) for _ in range(3)]
        for _ in streams:
            await handler.entered.acquire()
        handler.go_on.set()
        assert [(await each).status_code for each in streams] == [200] * 3
        assert (await client.get("/wait")).status_code == 200


async def test_proxies_are_believed_where_they_are_trusted(make_services: MakeServices) -> None:
    handler = Handler()
    handler.go_on.set()
    edge = an_edge(make_services, handler, GATEWAY_API_TRUSTED_PROXIES='["10.0.0.0/8"]')
    headers = {"X-Forwarded-For": "198.51.100.1", "X-Forwarded-Proto": "https"}
    for address, seen in (
        ("10.1.2.3", ("198.51.100.1", "https")),
        ("203.0.113.9", ("203.0.113.9", "http")),
    ):
        async with speaking_to(edge, address) as client:
            await client.get("/", headers=headers)
        scope = handler.scopes.pop()
        assert (scope["client"][0], scope["scheme"]) == seen


async def test_what_a_proxy_says_is_in_no_address(make_services: MakeServices) -> None:
    services = make_services(GATEWAY_API_TRUSTED_PROXIES='["127.0.0.0/8"]')
    gateway = Gateway(services, create_app(services))
    spoofed = {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}
    async with await gateway.client() as client:
        answer = await client.post("/v1/jobs", json=ECHO, headers=spoofed)
    assert "evil" not in answer.text + str(answer.headers)
    assert answer.headers["location"].startswith(PUBLIC_URL)


async def test_a_body_that_stops_coming_is_given_up(make_services: MakeServices) -> None:
    edge = an_edge(make_services, Handler(), GATEWAY_API_READ_TIMEOUT_SECONDS="0.05")
    sent: list[bytes] = []
    parts = iter([{"type": "http.request", "body": b"half", "more_body": True}])

    async def receive() -> dict[str, object]:
        for part in parts:
            return part
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, object]) -> None:
        sent.append(bytes(message.get("body", b"")))  # type: ignore[call-overload]

    scope = {"type": "http", "method": "POST", "path": "/body", "headers": [], "query_string": b""}
    await edge(scope, receive, send)  # type: ignore[arg-type]
    assert sent == [b"", b"nobody there"]


async def test_lines_of_the_log_name_their_request(
    make_services: MakeServices, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("tests.middleware")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        log.warning("something")
        await Response()(scope, receive, send)

    caplog.handler.addFilter(Subjects())
    edge = an_edge(make_services, app)  # type: ignore[arg-type]
    async with speaking_to(edge) as client:
        answer = await client.get("/", headers={"X-Request-Id": "mine-2"})
    assert answer.headers["x-request-id"] == "mine-2"
    [line] = [record for record in caplog.records if record.name == log.name]
    assert vars(line)["request"] == "mine-2"
