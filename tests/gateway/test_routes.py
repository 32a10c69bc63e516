"""Configured routes do what `POST /v1/jobs` does, with the input as the body."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from config.ids import partition_of
from config.settings import SettingsError, current_settings, load_settings
from gateway.app import create_app
from gateway.jobtypes import DefinitionError
from gateway.models import View
from tests.gateway.conftest import Gateway, MakeServices
from tests.gateway.in_force import put_in_force
from tests.gateway.jobs import assert_problem

DOCUMENTS, VIDEOS, ECHO = "/api/documents", "/api/videos/transcode", "/api/echo"
VIDEO = {"videoUrl": "https://media.example/holiday.mp4", "formats": ["720p", "1080p", "4k"]}
CALLBACK = "https://client.example/webhook/video-complete"
MODULES = json.dumps([f"gateway.handlers_.{name}" for name in ("document", "echo", "video")])


@pytest.fixture(autouse=True)
def _in_force(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the settings in force that a video's URL is judged by, and leave none behind."""
    put_in_force(monkeypatch)
    yield
    current_settings.cache_clear()


@pytest.fixture
def gateway(make_services: MakeServices) -> Gateway:
    """Return an application with the routes of the defaults, and one more."""
    services = make_services(
        GATEWAY_JOBS_MODULES=MODULES,
        GATEWAY_ROUTES=f'{{"{ECHO}" = "demo.echo"}}',
        GATEWAY_API_UPLOAD_LIMIT_BYTES="100000",
    )
    return Gateway(services, create_app(services))


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client that may do everything for the tenant acme."""
    async with await gateway.client() as client:
        yield client


async def kept(gateway: Gateway, answer: httpx.Response) -> View:
    """Return the job that `answer` says is kept."""
    assert answer.status_code == 202, answer.text
    view = await gateway.services.jobs.read(answer.json()["jobId"])
    assert isinstance(view, View)
    return view


@pytest.mark.parametrize(
    "label",
    [
        "text/plain;charset=UTF-8",
        "text/plain",
        "application/json",
        "application/json; charset=utf-8",
    ],
)
async def test_the_body_is_the_input(
    gateway: Gateway, client: httpx.AsyncClient, label: str
) -> None:
    body = json.dumps({**VIDEO, "callbackUrl": CALLBACK})
    answer = await client.post(VIDEOS, content=body, headers={"Content-Type": label})
    job = (await kept(gateway, answer)).job
    assert (job.type, job.input) == ("video.transcode", VIDEO)
    document = answer.json()
    assert document["callback"]["url"] == CALLBACK
    assert answer.headers["location"] == document["statusUrl"]
    assert document["statusUrl"].startswith("https://gateway.example/v1/jobs/")
    assert (await client.get(document["statusUrl"])).json()["status"] == "pending"


async def test_a_route_is_the_same_request_as_a_submission(client: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "one"}
    first = await client.post(ECHO, json={"payload": 1}, headers=key)
    again = await client.post(ECHO, json={"payload": 1}, headers=key)
    job = {"type": "demo.echo", "input": {"payload": 1}}
    elsewhere = await client.post("/v1/jobs", json=job, headers=key)
    assert {each.json()["jobId"] for each in (again, elsewhere)} == {first.json()["jobId"]}
    assert again.headers["idempotent-replayed"] == "true"
    other = await client.post(ECHO, json={"payload": 2}, headers=key)
    assert_problem(other, "idempotency_key_reused")


@pytest.mark.parametrize(
    ("path", "body", "code", "pointers"),
    [
        (VIDEOS, {**VIDEO, "formats": ["4k", "4k"]}, "invalid_input", ["/formats"]),
        (VIDEOS, {**VIDEO, "more": 1}, "invalid_input", ["/more"]),
        (VIDEOS, {**VIDEO, "callbackUrl": "ftp://h/"}, "invalid_callback_url", ["/callbackUrl"]),
        (VIDEOS, {**VIDEO, "callbackUrl": 1}, "invalid_request", ["/callbackUrl"]),
        (VIDEOS, [VIDEO], "invalid_request", [""]),
        (VIDEOS, {"video": {"part": "v"}, "formats": ["720p"]}, "invalid_input", ["/video"]),
        (DOCUMENTS, {"text": "x", "options": {"report": 1}}, "invalid_input", ["/options/report"]),
    ],
)
async def test_faults_are_where_the_client_put_them(
    client: httpx.AsyncClient, path: str, body: Any, code: str, pointers: list[str]
) -> None:
    problem = assert_problem(await client.post(path, json=body), code)
    assert [each["pointer"] for each in problem["errors"]] == pointers


async def test_credentials_and_methods_are_asked_for(gateway: Gateway) -> None:
    async with gateway.anyone() as anyone:
        assert_problem(await anyone.post(VIDEOS, json=VIDEO), "unauthorized")
        assert_problem(await anyone.get(VIDEOS), "method_not_allowed")
    async with await gateway.client(scopes=frozenset({"read"})) as reader:
        assert_problem(await reader.post(VIDEOS, json=VIDEO), "insufficient_scope")


@pytest.mark.parametrize(
    ("content", "label", "code"),
    [
        (b"{}", "text/plain; charset=utf-16", "unsupported_media_type"),
        (b"{}", "text/html", "unsupported_media_type"),
        (b"a=1", "application/x-www-form-urlencoded", "unsupported_media_type"),
        (b"{", "text/plain", "malformed_json"),
        (b'{"a":1,"a":1}', "text/plain", "malformed_json"),
        (b" " * 1_048_577, "text/plain", "body_too_large"),
    ],
)
async def test_other_bodies_are_refused(
    client: httpx.AsyncClient, content: bytes, label: str, code: str
) -> None:
    answer = await client.post(VIDEOS, content=content, headers={"Content-Type": label})
    assert_problem(answer, code)


FILE = ("minutes.txt", b"The river runs free.", "text/plain")
OPTIONS = json.dumps({"maxKeywords": 3})


@pytest.mark.parametrize(
    "parts",
    [
        [("document", FILE), ("options", (None, OPTIONS)), ("callbackUrl", (None, CALLBACK))],
        [("callbackUrl", (None, CALLBACK)), ("options", (None, OPTIONS)), ("file", FILE)],
        [
            ("options", ("blob", OPTIONS, "application/json")),
            ("document", FILE),
            ("callbackUrl", (None, CALLBACK)),
        ],
    ],
    ids=["file first", "file last, by another name", "options as a blob"],
)
async def test_a_form_is_the_input_in_parts(
    gateway: Gateway, client: httpx.AsyncClient, parts: list[tuple[str, Any]]
) -> None:
    answer = await client.post(DOCUMENTS, files=parts)
    job = (await kept(gateway, answer)).job
    assert job.input == {"document": {"part": "document"}, "options": {"maxKeywords": 3}}
    file = job.files["document"]
    assert (file.name, file.content_type) == ("minutes.txt", "text/plain")
    assert file.sha256 == hashlib.sha256(FILE[1]).hexdigest()
    assert await gateway.services.artifacts.read(file.path, 100) == FILE[1]
    assert file.path.startswith(f"jobs/{job.id}/")
    assert answer.json()["callback"]["url"] == CALLBACK
    assert job.callback is not None
    assert partition_of(job.id) == partition_of(job.callback.endpoint)


async def test_the_same_form_again_is_the_same_job(client: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "one"}
    answers = [
        await client.post(DOCUMENTS, files=[("document", FILE)], headers=key) for _ in range(2)
    ]
    assert answers[0].json()["jobId"] == answers[1].json()["jobId"]
    other = ("minutes.txt", b"Another text.", "text/plain")
    answer = await client.post(DOCUMENTS, files=[("document", other)], headers=key)
    assert_problem(answer, "idempotency_key_reused")


async def test_text_and_uploaded_files_go_in_a_form_as_well(
    gateway: Gateway, client: httpx.AsyncClient
) -> None:
    answer = await client.post(DOCUMENTS, files=[("text", (None, "[1] is no list"))])
    assert (await kept(gateway, answer)).job.input == {"text": "[1] is no list"}
    uploaded = (await client.post("/v1/files", content=b"x")).json()["fileId"]
    named = json.dumps({"fileId": uploaded})
    answer = await client.post(DOCUMENTS, files=[("document", (None, named))])
    assert (await kept(gateway, answer)).job.input == {"document": {"fileId": uploaded}}


@pytest.mark.parametrize(
    ("path", "parts", "code"),
    [
        (DOCUMENTS, [("document", FILE), ("document", FILE)], "malformed_body"),
        (DOCUMENTS, [("document", FILE), ("file", FILE)], "malformed_body"),
        (DOCUMENTS, [("document", FILE), ("options", (None, "{"))], "malformed_json"),
        (DOCUMENTS, [("document", FILE), ("text", (None, b"\xff"))], "malformed_body"),
        (DOCUMENTS, [("document", FILE), ("text", (None, "both"))], "invalid_input"),
        (DOCUMENTS, [("document", FILE), ("more", (None, "1"))], "invalid_input"),
        (DOCUMENTS, [("document", FILE), ("callbackUrl", (None, "no"))], "invalid_callback_url"),
        (DOCUMENTS, [("document", ("f", b"x" * 100_001, "text/plain"))], "body_too_large"),
        (DOCUMENTS, [("text", (None, "x" * 1_048_577))], "body_too_large"),
        (ECHO, [("payload", (None, "1")), ("file", FILE)], "unknown_member"),
    ],
)
async def test_a_refused_form_leaves_nothing_behind(
    gateway: Gateway,
    client: httpx.AsyncClient,
    path: str,
    parts: list[tuple[str, Any]],
    code: str,
) -> None:
    assert_problem(await client.post(path, files=parts), code)
    assert _files(gateway) == []


def _files(gateway: Gateway) -> list[Path]:
    folder = Path(gateway.services.settings.artifacts.url.removeprefix("file://"))
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_a_route_can_be_taken_away(make_services: MakeServices) -> None:
    services = make_services(GATEWAY_ROUTES=f'{{"{DOCUMENTS}" = ""}}')
    gateway = Gateway(services, create_app(services))
    async with await gateway.client() as client:
        assert_problem(await client.post(DOCUMENTS, json={"text": "x"}), "not_found")
        # The type of this one is not on offer here.
        assert_problem(await client.post(VIDEOS, json=VIDEO), "not_found")


def test_a_route_to_nowhere_stops_the_start(make_services: MakeServices) -> None:
    services = make_services(GATEWAY_ROUTES='{"/api/x" = "no.such"}')
    with pytest.raises(DefinitionError, match=r"routes\./api/x: there is no job type 'no\.such'"):
        create_app(services)


@pytest.mark.parametrize(
    "path", ["api", "/", "/api/", "/v1/x", "/docs", "/jobs/x", "/a b", "/a/../b", "/a/{b}", "//a"]
)
def test_a_path_that_cannot_be_had_is_named(path: str) -> None:
    environ = {"GATEWAY_PROFILE": "development", "GATEWAY_ROUTES": f'{{"{path}" = "demo.echo"}}'}
    with pytest.raises(SettingsError) as caught:
        load_settings(environ)
    assert any(each.startswith(f"routes.{path}") for each in caught.value.problems)
