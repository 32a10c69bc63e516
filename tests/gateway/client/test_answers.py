"""What the client makes of answers, and of none."""

from __future__ import annotations

import io
import json
import socket

import pytest

from gateway.client import (
    Client,
    DownloadFailed,
    GatewayClientError,
    JobCancelled,
    JobFailed,
    NoAnswer,
    ProblemError,
    UnexpectedAnswer,
    Upload,
    WaitTimeout,
)
from tests.gateway.client.conftest import QUICK, Both, client_of, document, problem
from tests.gateway.client.server import Planned, Scripted, answer, scripted


async def test_a_submission_is_repeated_under_one_key(planned: Both, server: Scripted) -> None:
    server.plan(
        Planned(pieces=(b"{",), breaks=True),
        problem(503, "store_unavailable"),
        answer(document("pending"), 202),
    )
    files = {"file": Upload(source=io.BytesIO(b"content"), name='a "name"')}
    await planned.call("submit", "t", {"x": {"part": "file"}}, files=files)
    keys = {received.headers["idempotency-key"] for received in server.received}
    bodies = {received.body for received in server.received}
    assert (len(server.received), len(keys), len(bodies)) == (3, 1, 1)
    [body] = bodies
    assert (
        body.index(b'name="job"') < body.index(b'filename="a %22name%22"') < body.index(b"content")
    )


async def test_giving_up_says_what_was_last(planned: Both, server: Scripted) -> None:
    server.plan(problem(503, "queue_full"))
    with pytest.raises(ProblemError) as caught:
        await planned.call("submit", "t", {})
    assert (caught.value.code, len(server.received)) == ("queue_full", QUICK.attempts)


async def test_a_proxys_error_is_a_problem_too(planned: Both, server: Scripted) -> None:
    server.plan(Planned(status=500, headers={"Content-Type": "text/html"}, pieces=(b"<h1>",)))
    with pytest.raises(ProblemError) as caught:
        await planned.call("get", "job_1")
    assert (caught.value.status, caught.value.code) == (500, "http_500")
    assert len(server.received) == 1


async def test_any_other_address_is_asked_as_json(planned: Both, server: Scripted) -> None:
    server.plan(answer({"items": []}), answer({"id": "ep_1"}, 201), Planned(status=204))
    assert await planned.call("ask", "GET", "/v1/endpoints?limit=1") == {"items": []}
    made = await planned.call("ask", "POST", "/v1/endpoints", {"url": "https://ä.example"})
    assert made == {"id": "ep_1"}
    assert await planned.call("ask", "DELETE", "/v1/endpoints/ep_1") is None
    asked = [(received.method, received.target) for received in server.received]
    assert asked == [
        ("GET", "/v1/endpoints?limit=1"),
        ("POST", "/v1/endpoints"),
        ("DELETE", "/v1/endpoints/ep_1"),
    ]
    assert json.loads(server.received[1].body) == {"url": "https://ä.example"}
    assert server.received[1].headers["content-type"] == "application/json"


@pytest.mark.parametrize(("method", "sent"), [("GET", QUICK.attempts), ("POST", 1)])
async def test_what_may_not_be_sent_twice_is_sent_once(
    planned: Both, server: Scripted, method: str, sent: int
) -> None:
    server.plan(problem(503, "store_unavailable"))
    with pytest.raises(ProblemError):
        await planned.call("ask", method, "/v1/admin/keys")
    assert len(server.received) == sent


async def test_what_has_a_key_is_repeated_under_it(planned: Both, server: Scripted) -> None:
    server.plan(problem(503, "store_unavailable"), answer({}))
    await planned.call("ask", "POST", "/v1/endpoints/ep_1/rotate", idempotency_key="once")
    keys = [received.headers["idempotency-key"] for received in server.received]
    assert keys == ["once", "once"]


@pytest.mark.parametrize("path", ["", "v1/jobs", "//other.example/v1/", "/v1/../x", "/livez"])
async def test_what_is_no_path_is_not_asked(planned: Both, server: Scripted, path: str) -> None:
    with pytest.raises(ValueError, match="no path"):
        await planned.call("ask", "GET", path)
    assert not server.received


async def test_nobody_there_is_no_answer(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    async with client_of(kind, f"http://127.0.0.1:{port}") as client:
        with pytest.raises(NoAnswer) as caught:
            await client.call("get", "job_1")
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"jobId": 1}', json.dumps(document([])).encode()],  # type: ignore[arg-type]
)
async def test_no_job_document_is_said_so(planned: Both, server: Scripted, body: bytes) -> None:
    server.plan(Planned(headers={"Content-Type": "application/json"}, pieces=(body,)))
    with pytest.raises(UnexpectedAnswer):
        await planned.call("get", "job_1")


async def test_the_key_stays_with_its_origin(planned: Both, server: Scripted) -> None:
    with scripted() as other:
        other.plan(answer(document()))
        server.plan(Planned(status=302, headers={"Location": f"{other.url}/v1/jobs/job_1"}))
        with pytest.raises(UnexpectedAnswer, match="redirects to"):
            await planned.call("get", "job_1")
        assert other.received == []
        # An artifact elsewhere, as a store hands it out by itself, is fetched without the key.
        other.plan(Planned(pieces=(b"bytes",)))
        kept = io.BytesIO()
        await planned.call("download", f"{other.url}/bucket/object?signed=1", kept)
        assert kept.getvalue() == b"bytes"
        assert "authorization" not in other.received[0].headers


async def test_a_redirect_within_the_origin_is_followed(planned: Both, server: Scripted) -> None:
    moved = Planned(status=303, headers={"Location": "/v1/jobs/job_1/result?ticket=t"})
    server.plan(moved, answer(document("completed", results=1)))
    assert (await planned.call("get", "job_1")).results == 1
    assert server.received[1].target == "/v1/jobs/job_1/result?ticket=t"
    assert server.received[1].headers["authorization"] == "Bearer key"
    server.plan(moved)
    with pytest.raises(UnexpectedAnswer, match="too many redirects"):
        await planned.call("get", "job_1")


async def test_a_public_address_is_asked_at_the_base_url(planned: Both, server: Scripted) -> None:
    server.plan(Planned(pieces=(b"bytes",)))
    href = "https://gateway.example/v1/jobs/job_1/artifacts/a%20b.pdf"
    await planned.call("download", {"href": href, "size": 5}, io.BytesIO())
    assert server.received[0].headers["authorization"] == "Bearer key"
    assert server.received[0].target == "/v1/jobs/job_1/artifacts/a b.pdf"


async def test_what_cannot_be_sent_again_is_refused(planned: Both) -> None:
    class Pipe(io.RawIOBase):
        pass

    with pytest.raises(ValueError, match="able to seek"):
        await planned.call("upload", Pipe())


async def test_jobs_are_listed_page_by_page(planned: Both, server: Scripted) -> None:
    server.plan(
        answer({"items": [document()], "nextCursor": "c"}),
        answer({"items": [], "nextCursor": None}),
    )
    page = await planned.call("list", status="failed", type="a b", limit=1)
    assert ([job.id for job in page.items], page.next_cursor) == (["job_1"], "c")
    last = await planned.call("list", cursor=page.next_cursor)
    assert (last.items, last.next_cursor) == ((), None)
    targets = [received.target for received in server.received]
    assert targets == ["/v1/jobs?status=failed&type=a+b&limit=1", "/v1/jobs?cursor=c"]


@pytest.mark.parametrize("identifier", ["", "..", "a/b", "a?b", "é", "a" * 101])
async def test_what_is_no_identifier_is_not_sent(
    planned: Both, server: Scripted, identifier: str
) -> None:
    with pytest.raises(ValueError, match="identifier"):
        await planned.call("get", identifier)
    assert server.received == []


@pytest.mark.parametrize("url", ["", "gateway.example", "ftp://h", "https://", "https://h/?a=b"])
def test_a_base_url_is_checked(url: str) -> None:
    with pytest.raises(ValueError, match="base URL"):
        Client(url)


def test_every_error_has_one_root() -> None:
    for kind in (DownloadFailed, JobCancelled, JobFailed, NoAnswer, ProblemError, WaitTimeout):
        assert issubclass(kind, GatewayClientError)
