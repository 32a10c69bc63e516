"""The client, blocking and awaited, against a whole gateway and against planned answers."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from gateway.client import (
    AsyncClient,
    Client,
    DownloadFailed,
    GatewayClientError,
    Job,
    JobCancelled,
    JobEvent,
    JobExpired,
    JobFailed,
    NoAnswer,
    Patience,
    ProblemError,
    UnexpectedAnswer,
    Upload,
    WaitTimeout,
)
from tests.gateway.client_server import Planned, Scripted, answer, scripted, stream
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


# --- A whole gateway


async def test_a_job_from_submission_to_its_results(client: Both) -> None:
    job: Job = await client.call(
        "submit", "demo.echo", {"payload": {"é": [1, None]}}, priority="high", metadata={"n": 1}
    )
    assert (job.type, job.priority, job.metadata) == ("demo.echo", "high", {"n": 1})
    ended: Job = await client.call("wait", job, timeout=20)
    assert (ended.id, ended.status, ended.is_ended) == (job.id, "completed", True)
    assert ended.results == {"payload": {"é": [1, None]}}
    assert ended.completed_at is not None
    assert ended.completed_at >= job.created_at
    assert ended.raw["statusUrl"].endswith(job.id)
    assert (await client.call("get", job.id)).results == ended.results
    assert (await client.call("result", job)).results == ended.results


@pytest.mark.parametrize("form", ["path", "bytes", "open file"])
async def test_a_document_goes_in_and_its_report_comes_out(
    client: Both, tmp_path: Path, form: str
) -> None:
    with SAMPLE.open("rb") as opened:
        sources = {"path": SAMPLE, "bytes": Upload(source=SAMPLE.read_bytes(), name="a.pdf")}
        job = await client.call(
            "submit",
            "document.analyze",
            {"document": {"part": "file"}},
            files={"file": sources.get(form, opened)},
        )
    ended = await client.call("wait", job, timeout=60)
    assert ended.results["pages"] == 3
    artifact = ended.results["artifacts"][0]
    place = tmp_path / "report"
    await client.call("download", artifact, place)
    assert hashlib.sha256(place.read_bytes()).hexdigest() == artifact["sha256"]
    kept = io.BytesIO()
    await client.call("download", artifact["href"], kept)
    assert kept.getvalue() == place.read_bytes()
    assert files_in(tmp_path) == {"report": place.read_bytes()}


async def test_an_uploaded_file_is_an_input(client: Both) -> None:
    file = await client.call("upload", SAMPLE)
    assert file.size == SAMPLE.stat().st_size
    assert file.sha256 == hashlib.sha256(SAMPLE.read_bytes()).hexdigest()
    job = await client.call("submit", "document.analyze", {"document": {"fileId": file.id}})
    assert (await client.call("wait", job, timeout=60)).results["pages"] == 3


async def test_a_job_that_fails_says_why(client: Both) -> None:
    job = await client.call("submit", "demo.echo", {"payload": 1, "fail": "No more paper."})
    with pytest.raises(JobFailed, match=r"No more paper\.") as caught:
        await client.call("wait", job, timeout=20)
    assert caught.value.job.error == "No more paper."
    assert caught.value.job.results is None
    again = await client.call("retry", job)
    assert again.retry_of == job.id
    assert (await client.call("retry", job)).id == again.id


async def test_a_job_is_cancelled_and_erased(client: Both) -> None:
    job = await client.call("submit", "demo.echo", {"payload": 1, "seconds": 30})
    await client.call("cancel", job)
    with pytest.raises(JobCancelled):
        await client.call("wait", job, timeout=20)
    await client.call("delete", job)
    await client.call("delete", job)
    with pytest.raises(JobExpired) as caught:
        await client.call("wait", job, timeout=20)
    assert caught.value.members["jobId"] == job.id


async def test_waiting_ends_in_time_and_the_job_goes_on(client: Both) -> None:
    job = await client.call("submit", "demo.echo", {"payload": 1, "seconds": 30})
    with pytest.raises(WaitTimeout) as caught:
        await client.call("wait", job, timeout=0.2)
    assert caught.value.job is not None
    assert not caught.value.job.is_ended
    await client.call("cancel", job)


async def test_events_end_with_the_job(client: Both) -> None:
    job = await client.call("submit", "demo.echo", {"payload": 1, "seconds": 1.2, "steps": 4})
    events = await client.events(job, timeout=20)
    assert events[0].name == "snapshot"
    assert events[-1].name == "completed"
    assert events[-1].job.results == {"payload": 1}
    progress = [event.job.progress for event in events]
    assert progress == sorted(progress)


async def test_a_key_given_twice_is_one_job(client: Both, kind: str) -> None:
    key = f"order-{kind}"
    jobs = [
        await client.call("submit", "demo.echo", {"payload": 1}, idempotency_key=key)
        for _ in range(2)
    ]
    assert jobs[0].id == jobs[1].id
    with pytest.raises(ProblemError) as caught:
        await client.call("submit", "demo.echo", {"payload": 2}, idempotency_key=key)
    assert (caught.value.status, caught.value.code) == (422, "idempotency_key_reused")


async def test_a_refusal_names_the_members_at_fault(client: Both) -> None:
    with pytest.raises(ProblemError, match="/input/payload") as caught:
        await client.call("submit", "demo.echo", {})
    assert (caught.value.status, caught.value.code) == (422, "invalid_input")
    assert [each["pointer"] for each in caught.value.errors] == ["/input/payload"]


async def test_a_wrong_key_and_an_unknown_job_are_refused(kind: str, whole: Gateway) -> None:
    url = str(whole.client.base_url)
    async with client_of(kind, url, "gwk_wrong-key") as client:
        with pytest.raises(ProblemError) as caught:
            await client.call("get", "job_unknown")
        assert caught.value.code == "unauthorized"
    async with client_of(kind, url) as client:
        with pytest.raises(ProblemError) as caught:
            await client.call("get", "job_unknown")
        assert caught.value.code == "not_found"


# --- Planned answers


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


def artifact(data: bytes) -> dict[str, Any]:
    return {"href": "/v1/jobs/job_1/artifacts/a", "size": len(data), "sha256": sha256(data)}


def files_in(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("ranges", [True, False], ids=["resumed", "from-the-start"])
async def test_a_download_that_breaks_off_is_taken_up(
    planned: Both, server: Scripted, tmp_path: Path, *, ranges: bool
) -> None:
    etag = {"ETag": '"v1"'} if ranges else {}
    first = Planned(headers={"Content-Length": "10", **etag}, pieces=(b"01234",), breaks=True)
    rest = {"Content-Range": "bytes 5-9/10"} if ranges else {}
    data = b"56789" if ranges else b"0123456789"
    server.plan(first, Planned(status=206 if ranges else 200, headers=rest, pieces=(data,)))
    place = tmp_path / "a"
    await planned.call("download", artifact(b"0123456789"), str(place))
    assert place.read_bytes() == b"0123456789"
    asked = server.received[1].headers
    wanted = ("bytes=5-", '"v1"') if ranges else (None, None)
    assert (asked.get("range"), asked.get("if-range")) == wanted


@pytest.mark.parametrize(
    ("sent", "said"),
    [(b"0123456780", "SHA-256"), (b"012345678", "9 bytes came of 10"), (b"0" * 11, "more than")],
    ids=["other", "short", "long"],
)
async def test_other_bytes_than_announced_leave_no_file(
    planned: Both, server: Scripted, tmp_path: Path, sent: bytes, said: str
) -> None:
    server.plan(Planned(pieces=(sent,)))
    place = tmp_path / "a"
    place.write_bytes(b"as it was")
    with pytest.raises(DownloadFailed, match=said):
        await planned.call("download", artifact(b"0123456789"), place)
    assert files_in(tmp_path) == {"a": b"as it was"}


async def test_a_file_that_cannot_be_written_leaves_nothing(
    planned: Both, server: Scripted, tmp_path: Path
) -> None:
    server.plan(Planned(pieces=(b"0",)))
    with pytest.raises(FileNotFoundError):
        await planned.call("download", artifact(b"0"), tmp_path / "none" / "a")
    assert files_in(tmp_path) == {}


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


def sse(name: str, number: int, status: str = "processing", **members: Any) -> str:
    data = json.dumps(document(status, progress=number, **members))
    return f"event: {name}\nid: {number}\ndata: {data}\n\n"


async def test_an_event_stream_is_taken_up_where_it_broke(planned: Both, server: Scripted) -> None:
    server.plan(
        stream(": hello\n\nretry: 10\n", sse("snapshot", 1), sse("progress", 2)[:30], breaks=True),
        stream(sse("progress", 2), sse("expiring", 3)),
        problem(503, "store_unavailable"),
        stream(sse("completed", 4, "completed", results=7) + "data: more\n\n"),
    )
    events = await planned.events("job_1", timeout=20)
    assert [event.name for event in events] == ["snapshot", "progress", "expiring", "completed"]
    assert [event.id for event in events] == ["1", "2", "3", "4"]
    assert events[-1].job.results == 7
    asked = [received.headers.get("last-event-id") for received in server.received]
    assert asked == [None, "1", "3", "3"]
    assert {received.headers["accept"] for received in server.received} == {"text/event-stream"}


async def test_a_stream_that_is_over_is_not_asked_again(planned: Both, server: Scripted) -> None:
    server.plan(stream(sse("snapshot", 9, "failed")))
    assert [event.job.status for event in await planned.events("job_1")] == ["failed"]
    server.plan(Planned(status=204))
    assert await planned.events("job_1") == []
    assert len(server.received) == 2


async def test_streams_that_say_nothing_are_given_up(planned: Both, server: Scripted) -> None:
    server.plan(stream(": nothing\n\n"))
    with pytest.raises(NoAnswer):
        await planned.events("job_1", timeout=20)
    assert len(server.received) == QUICK.attempts


async def test_leaving_events_early_lets_go_of_the_stream(server: Scripted) -> None:
    server.plan(stream(sse("snapshot", 1), sse("progress", 2)))
    with Client(server.url, patience=QUICK) as client:
        events = client.events("job_1")
        assert next(events).name == "snapshot"
        events.close()
        assert client._http._transport._pool.connections == []  # type: ignore[attr-defined]  # noqa: SLF001


@pytest.mark.parametrize("status", [404, 406])
async def test_without_a_stream_it_polls(planned: Both, server: Scripted, status: int) -> None:
    etag = {"ETag": 'W/"1"'}
    server.plan(
        problem(status, "not_found"),
        answer(document(), 200, etag),
        Planned(status=304, headers={**etag, "Preference-Applied": "wait=10"}),
        answer(document("completed", results=7)),
    )
    events = await planned.events("job_1", timeout=20)
    assert [event.name for event in events] == ["snapshot", "completed"]
    polls = [received.headers for received in server.received[1:]]
    assert [poll.get("if-none-match") for poll in polls] == [None, 'W/"1"', 'W/"1"']


async def test_a_job_nobody_knows_has_no_events(planned: Both, server: Scripted) -> None:
    server.plan(problem(404, "not_found"))
    with pytest.raises(ProblemError) as caught:
        await planned.events("job_1")
    assert caught.value.code == "not_found"


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


def test_it_needs_nothing_but_python_and_httpx(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    client = packages / "gateway" / "client"
    client.mkdir(parents=True)
    shutil.copy(ROOT / "gateway" / "__init__.py", packages / "gateway")
    for source in (ROOT / "gateway" / "client").glob("*.py"):
        shutil.copy(source, client)
    for folder in _needed_by("httpx"):
        (packages / folder.name).symlink_to(folder)
    program = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "from gateway.client import AsyncClient, Client, NoAnswer, Patience\n"
        "import asyncio\n"
        "once = Patience(attempts=1)\n"
        "async def ask():\n"
        "    async with AsyncClient('http://127.0.0.1:1', patience=once) as client:\n"
        "        await client.get('job_1')\n"
        "for run in (lambda: asyncio.run(ask()),\n"
        "            lambda: Client('http://127.0.0.1:1', patience=once).get('job_1')):\n"
        "    try:\n"
        "        run()\n"
        "    except NoAnswer as error:\n"
        "        print(type(error).__name__)\n"
    )
    # -I and -S: neither this checkout nor any installed package can be found.
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(packages)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["NoAnswer", "NoAnswer"]


def _needed_by(name: str) -> set[Path]:
    """Return what was installed for a distribution and everything it requires."""
    found: set[Path] = set()
    waiting, known = [name], {name}
    while waiting:
        distribution = metadata.distribution(waiting.pop())
        tops = {file.parts[0] for file in distribution.files or [] if file.suffix == ".py"}
        root = Path(str(distribution.locate_file("")))
        found |= {root / top for top in tops if top != ".."}
        for requirement in distribution.requires or []:
            required = requirement.partition(";")
            other = "".join(required[0].split(" ")[:1]).split("=")[0].split("<")[0].split(">")[0]
            if "extra" not in required[2] and other not in known and _is_installed(other):
                known.add(other)
                waiting.append(other)
    return found


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
