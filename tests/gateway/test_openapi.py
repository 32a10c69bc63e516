"""The OpenAPI document says what the gateway does: all of it, and nothing else."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any, get_args

import httpx
import jsonschema
import pytest
from openapi_spec_validator import validate
from starlette.routing import Route, WebSocketRoute

from config.clock import SECOND
from config.settings import current_settings
from delivery.models import Scheme
from delivery.notices import Event as OperatorNotice
from delivery.notices import Notice
from gateway.app import create_app
from gateway.documents import event_body
from gateway.models import Job, Payload, StoredFile
from gateway.openapi.examples import CALLBACK_URL, FILE_ID
from gateway.ownership import VERIFICATION, challenge_body
from gateway.problems import PROBLEMS
from gateway.schemas.jobs import Event
from gateway.urls import Urls
from tests.gateway.burying import bury, run_replays
from tests.gateway.conftest import PUBLIC_URL, Gateway, MakeServices
from tests.gateway.in_force import put_in_force
from tests.gateway.jobs import ECHO, finish, save, submit

MODULES = json.dumps(
    [f"gateway.handlers_.{name}" for name in ("document", "echo", "http", "video")]
)
FILE = "(the bytes of the file)"


@pytest.fixture(autouse=True)
def _in_force(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the settings in force that inputs of job types are judged by, and leave none behind."""
    put_in_force(monkeypatch)
    yield
    current_settings.cache_clear()


@pytest.fixture
def whole(make_services: MakeServices) -> Gateway:
    """Return an application with every job type that comes with the gateway."""
    services = make_services(GATEWAY_JOBS_MODULES=MODULES)
    return Gateway(services, create_app(services))


@pytest.fixture
async def document(whole: Gateway) -> dict[str, Any]:
    """Return the document, as anyone gets it."""
    async with whole.anyone() as client:
        answer = await client.get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


class Contract:
    """Holds answers against the document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._closed = _closed(document["components"])
        self._paths = [
            (re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path)), item)
            for path, item in sorted(document["paths"].items(), key=lambda each: "{" in each[0])
        ]
        self.seen: set[tuple[str, str]] = set()

    def check(self, answer: httpx.Response) -> None:
        """Pass when `answer` is one that the document knows, in every member."""
        method = answer.request.method.lower()
        item = next(item for path, item in self._paths if path.fullmatch(answer.request.url.path))
        operation = item["get" if method == "head" else method]
        status = str(answer.status_code)
        assert status in operation["responses"], (operation["operationId"], status, answer.text)
        told = operation["responses"][status]
        for name, header in told.get("headers", {}).items():
            assert name in answer.headers or not header["required"], (answer.request.url, name)
        self.seen.add((operation["operationId"], status))
        if answer.content:
            self._check_body(answer, told["content"])

    def _check_body(self, answer: httpx.Response, contents: dict[str, Any]) -> None:
        media_type = answer.headers["content-type"].partition(";")[0]
        content = contents.get(media_type) or contents["*/*"]
        if media_type.endswith("json"):
            self.validate(answer.json(), content["schema"])

    def validate(self, value: Any, schema: dict[str, Any]) -> None:
        """Pass when `value` is valid, and has no member that the document does not name."""
        _validate(value, schema, self._closed)


def _validate(value: Any, schema: dict[str, Any], components: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(
        {**schema, "components": components}, format_checker=jsonschema.FormatChecker()
    ).validate(value)


def _closed(components: dict[str, Any]) -> dict[str, Any]:
    """Return `components` with every object refusing members that its schema does not name."""
    closed = copy.deepcopy(components)
    for schema in closed["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return closed


def _camel(path: str) -> str:
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), path)


def test_it_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert document["servers"] == [{"url": PUBLIC_URL}]
    validate(document)


async def test_it_has_every_route_and_no_other(whole: Gateway, document: dict[str, Any]) -> None:
    answered: dict[str, set[str]] = {}
    async with whole.anyone() as client:
        for route in whole.app.routes:
            if isinstance(route, Route):
                allowed = await client.options(route.path.replace("{", "").replace("}", ""))
                methods = set(allowed.headers["allow"].lower().split(", "))
                answered[_camel(route.path)] = methods - {"head", "options"}
    assert {path: set(item) for path, item in document["paths"].items()} == answered


def test_it_tells_of_every_websocket(whole: Gateway, document: dict[str, Any]) -> None:
    text = document["paths"]["/v1/jobs/{jobId}/events"]["get"]["description"]
    found = [each.path for each in whole.app.routes if isinstance(each, WebSocketRoute)]
    assert found
    for path in found:
        assert f"`{_camel(path)}`" in text


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for item in document["paths"].values():
        yield from item.values()


def test_it_has_every_problem_under_its_status(document: dict[str, Any]) -> None:
    named: dict[str, set[int]] = {}
    for operation in _operations(document):
        for status, answer in operation["responses"].items():
            content = answer.get("content", {}).get("application/problem+json")
            if content is not None:
                for code in content["schema"]["properties"]["code"]["enum"]:
                    named.setdefault(code, set()).add(int(status))
    # A WebSocket's, which has no operation.
    elsewhere = {"origin_not_allowed", "method_not_allowed"}
    assert named.keys() | elsewhere == PROBLEMS.keys()
    assert all(named[code] == {PROBLEMS[code].status} for code in named)
    shown = document["components"]["schemas"]["ProblemDocument"]["properties"]["code"]["enum"]
    assert set(shown) == PROBLEMS.keys()


def test_operations_say_who_may(document: dict[str, Any]) -> None:
    public = {
        operation["operationId"]
        for operation in _operations(document)
        if operation["security"] == []
    }
    assert public == {"getProblem", "getAlive", "getReady", "getOpenapi", "getDocs", "getDocsAsset"}
    assert {"401", "403"} <= set(document["paths"]["/v1/jobs"]["post"]["responses"])
    status = document["paths"]["/v1/jobs/{jobId}"]["get"]
    assert status["security"] == [{"apiKey": ["read"]}, {"ticket": []}]


def _contents(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every media type object, with the place it is at."""
    messages = document["components"]["pathItems"].values()
    for operation in [*_operations(document), *(item["post"] for item in messages)]:
        place = operation["operationId"]
        for name, content in operation.get("requestBody", {}).get("content", {}).items():
            yield f"{place} {name}", content
        for status, answer in operation["responses"].items():
            for content in answer.get("content", {}).values():
                yield f"{place} {status}", content


def _example(document: dict[str, Any], example: dict[str, Any]) -> Any:
    if "$ref" in example:
        example = document["components"]["examples"][example["$ref"].rpartition("/")[2]]
    return example["value"]


def test_every_example_is_valid(document: dict[str, Any]) -> None:
    contract = Contract(document)
    checked = 0
    for _, content in _contents(document):
        for example in content.get("examples", {}).values():
            contract.validate(_example(document, example), content["schema"])
            checked += 1
    assert checked > 100
    for operation in _operations(document):
        for parameter in operation.get("parameters", []):
            if "example" in parameter:
                _validate(parameter["example"], parameter["schema"], {})


def test_every_json_body_has_an_example(document: dict[str, Any]) -> None:
    bare = [
        place
        for place, content in _contents(document)
        if content["schema"] not in ({}, {"type": "string"}, {"type": "object"})
        and content["schema"].get("contentMediaType") is None
        and not content.get("examples")
    ]
    assert bare == []


async def test_every_example_of_a_request_is_taken(
    whole: Gateway, document: dict[str, Any]
) -> None:
    contract = Contract(document)
    sent = 0
    async with await whole.client() as client:
        uploaded = (await client.post("/v1/files", content=b"a video")).json()["fileId"]
        made = await client.post("/v1/endpoints", json={"url": CALLBACK_URL})
        for path, item in document["paths"].items():
            for method, operation in item.items():
                for media_type, content in (
                    operation.get("requestBody", {}).get("content", {}).items()
                ):
                    for example in content.get("examples", {}).values():
                        value = _with_file(_example(document, example), uploaded)
                        request = _request(media_type, value)
                        url = path.replace("{endpointId}", made.json()["id"])
                        answer = await client.request(method, url, **request)
                        assert answer.is_success, (path, value, answer.text)
                        contract.check(answer)
                        sent += 1
    assert sent > 10


def _with_file(value: Any, uploaded: str) -> Any:
    match value:
        case dict():
            return {key: _with_file(each, uploaded) for key, each in value.items()}
        case list():
            return [_with_file(each, uploaded) for each in value]
        case _:
            return value.replace(FILE_ID, uploaded) if isinstance(value, str) else value


def _request(media_type: str, value: Any) -> dict[str, Any]:
    match media_type:
        case "application/json":
            return {"json": value}
        case "multipart/form-data":
            return {"files": [(name, _part(name, each)) for name, each in value.items()]}
        case _:
            return {"content": value, "headers": {"Content-Type": media_type}}


def _part(name: str, value: Any) -> tuple[str | None, Any, str]:
    if value == FILE:
        return (name, b"bytes", "application/octet-stream")
    if isinstance(value, str):
        return (None, value, "text/plain")
    return (None, httpx.Request("POST", "http://h", json=value).content, "application/json")


@pytest.fixture
async def checked(
    whole: Gateway, document: dict[str, Any]
) -> AsyncIterator[tuple[httpx.AsyncClient, Contract]]:
    """Return a client whose every answer is held against the document."""
    contract = Contract(document)

    async def check(answer: httpx.Response) -> None:
        await answer.aread()
        contract.check(answer)

    async with await whole.client() as client:
        client.event_hooks["response"].append(check)
        yield client, contract


CALLBACK = {"callbackUrl": "https://client.example/hook", "callback": {"headers": {"X-A": "b"}}}


async def test_answers_about_jobs_are_those_of_the_document(
    whole: Gateway, checked: tuple[httpx.AsyncClient, Contract]
) -> None:
    client, contract = checked
    services = whole.services
    done = await submit(client, **CALLBACK, metadata={"a": [1]})
    await client.get(f"/v1/jobs/{done}")
    await client.get(f"/v1/jobs/{done}", headers={"If-None-Match": "*"})
    await client.get(f"/v1/jobs/{done}/result")
    await client.delete(f"/v1/jobs/{done}")
    file = await save(services, done, "a.pdf", b"pdf")
    await finish(services, done, results={"payload": 1}, artifacts={"a.pdf": file})
    await client.get(f"/v1/jobs/{done}/events", headers={"Last-Event-ID": "999"})
    for path in ("", "?onComplete=inline", "?onComplete=both", "/result", "/deliveries", "/events"):
        await client.get(f"/v1/jobs/{done}{path}")
    await client.head(f"/v1/jobs/{done}")
    for headers in ({}, {"Range": "bytes=0-1"}, {"Range": "bytes=9-"}, {"If-None-Match": "*"}):
        await client.get(f"/v1/jobs/{done}/artifacts/a.pdf", headers=headers)
    await client.post(f"/v1/jobs/{done}/cancel")
    await client.post(f"/v1/jobs/{done}/retry")
    await client.post(f"/v1/jobs/{done}/ticket")
    await client.delete(f"/v1/jobs/{done}")
    for path in ("", "/result", "/artifacts/a.pdf", "/events", "/deliveries"):
        await client.get(f"/v1/jobs/{done}{path}")
    failed = await submit(client)
    await finish(services, failed, status="failed", error="No.", error_code="no")
    for path in ("", "/result"):
        await client.get(f"/v1/jobs/{failed}{path}")
    await client.post(f"/v1/jobs/{failed}/retry")
    waiting, running = await submit(client), await submit(client)
    await services.work.claim(running, "claim", lease=30 * SECOND)
    for job_id in (waiting, running, waiting):
        await client.post(f"/v1/jobs/{job_id}/cancel")
    await client.get(f"/v1/jobs/{waiting}/result")
    await client.get("/v1/jobs", params={"limit": 2})
    await client.get("/v1/jobs", params={"limit": "x"})
    await client.get("/v1/jobs/nothing")
    wanted = {
        ("getJob", "200"), ("getJob", "303"), ("getJob", "304"), ("getJob", "400"),
        ("getJob", "404"), ("getJob", "410"), ("getResult", "200"), ("getResult", "409"),
        ("cancelJob", "200"), ("cancelJob", "202"), ("cancelJob", "409"), ("eraseJob", "204"),
        ("eraseJob", "409"), ("retryJob", "202"), ("retryJob", "409"), ("makeTicket", "201"),
        ("getArtifact", "200"), ("getArtifact", "206"), ("getArtifact", "304"),
        ("getArtifact", "416"), ("listJobs", "200"), ("listJobs", "400"), ("listDeliveries", "200"),
        ("watchJob", "200"), ("watchJob", "204"), ("watchJob", "410"),
    }  # fmt: skip
    assert wanted <= contract.seen


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"json": {**ECHO, "type": "nobody.knows"}}, 422),
        ({"json": {**ECHO, "more": 1}}, 422),
        ({"json": {**ECHO, "input": {}}}, 422),
        ({"json": {**ECHO, "callbackUrl": "ftp://h"}}, 422),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400),
        ({"content": b"{", "headers": {"Content-Type": "text/html"}}, 415),
        ({"json": ECHO, "headers": {"Idempotency-Key": ""}}, 400),
        ({"json": ECHO, "headers": {"Authorization": "Basic x"}}, 401),
        ({"content": b" " * 1_048_577, "headers": {"Content-Type": "application/json"}}, 413),
    ],
)
async def test_refusals_are_those_of_the_document(
    checked: tuple[httpx.AsyncClient, Contract], request_: dict[str, Any], status: int
) -> None:
    client, contract = checked
    await client.post("/v1/jobs", **request_)
    assert contract.seen == {("submitJob", str(status))}


async def test_answers_about_the_rest_are_those_of_the_document(
    checked: tuple[httpx.AsyncClient, Contract],
) -> None:
    client, contract = checked
    file = (await client.post("/v1/files", content=b"bytes")).json()["fileId"]
    await client.get(f"/v1/files/{file}")
    await client.get("/v1/files/none")
    url = {"url": "https://client.example/hook"}
    endpoint = (await client.post("/v1/endpoints", json=url)).json()["id"]
    await client.post("/v1/endpoints", json=url)
    for path in ("", f"/{endpoint}", f"/{endpoint}/secret", "/none"):
        await client.get(f"/v1/endpoints{path}")
    for path in (f"/{endpoint}/rotate", f"/{endpoint}/test", "/none/rotate", "/none/test"):
        await client.post(f"/v1/endpoints{path}")
    for scheme in get_args(Scheme):
        await client.post(f"/v1/endpoints/{endpoint}/rotate", json={"scheme": scheme})
    await client.post(f"/v1/endpoints/{endpoint}/test", json={"url": "https://other.example/"})
    await client.patch(f"/v1/endpoints/{endpoint}", json={"maxConcurrency": 3})
    await client.patch(f"/v1/endpoints/{endpoint}", json={"disabledUrls": ["ftp://h/"]})
    for step in ("pause", "resume"):
        await client.post(f"/v1/endpoints/{endpoint}/{step}")
    await client.delete(f"/v1/endpoints/{endpoint}")  # a sample waits
    other = {"url": "https://other.example/hook"}
    unused = (await client.post("/v1/endpoints", json=other)).json()["id"]
    await client.delete(f"/v1/endpoints/{unused}")
    key = (await client.post("/v1/admin/keys", json={"scopes": ["read"], "name": "n"})).json()["id"]
    await client.post("/v1/admin/keys", json={"scopes": ["read", "read"]})
    for path in ("", f"/{key}", "?limit=0", "/none"):
        await client.get(f"/v1/admin/keys{path}")
    await client.delete(f"/v1/admin/keys/{key}")
    await client.post("/v1/admin/tenants", json={"id": "new"})
    await client.post("/v1/admin/tenants", json={"id": "new"})
    await client.get("/v1/admin/tenants")
    for path in (
        "/v1/job-types", "/problems/not_found", "/problems/none", "/livez", "/readyz", "/docs",
        "/docs/docs.css", "/docs/docs.js", "/docs/none", "/openapi.json",
    ):  # fmt: skip
        await client.get(path)
    await client.get("/openapi.json", headers={"If-None-Match": "*"})
    assert len(contract.seen) == 40


async def test_deliveries_are_those_of_the_document(
    whole: Gateway, checked: tuple[httpx.AsyncClient, Contract]
) -> None:
    client, contract = checked
    job_id = await submit(client, **CALLBACK)
    await client.post(f"/v1/jobs/{job_id}/cancel")
    [delivery] = (await client.get(f"/v1/jobs/{job_id}/deliveries")).json()["items"]
    await client.get(f"/v1/deliveries/{delivery['id']}")
    await client.get("/v1/deliveries/none")
    await client.post(f"/v1/deliveries/{delivery['id']}/redeliver")
    assert {("getDelivery", "200"), ("getDelivery", "404"), ("redeliver", "202")} <= contract.seen


async def test_dead_letters_and_replays_are_those_of_the_document(
    whole: Gateway, checked: tuple[httpx.AsyncClient, Contract]
) -> None:
    client, contract = checked
    services = whole.services
    failed = await submit(client)
    await finish(services, failed, status="failed", error="No.", error_code="no")
    await bury(client, services)
    for path in ("", "?kind=job", "?limit=0", "/stats", "/stats?kind=job", "/stats?limit=1"):
        await client.get(f"/v1/dead-letters{path}")
    made = (await client.post("/v1/replays", json={"all": True, "rate": 1.5})).json()["id"]
    await client.post("/v1/replays", json={})
    await client.post("/v1/replays", json={"all": True, "toUrl": "ftp://h"})
    for method, path in (
        ("GET", ""), ("GET", "?limit=0"), ("GET", f"/{made}"), ("GET", "/none"),
        ("POST", f"/{made}/cancel"), ("POST", f"/{made}/resume"), ("POST", "/none/cancel"),
    ):  # fmt: skip
        await client.request(method, f"/v1/replays{path}")
    await run_replays(services)
    for step in ("", "/cancel", "/resume"):
        await client.request("POST" if step else "GET", f"/v1/replays/{made}{step}")
    wanted = {
        *((name, status) for name in ("listDeadLetters", "countDeadLetters", "listReplays")
          for status in ("200", "400")),
        ("createReplay", "202"), ("createReplay", "422"), ("getReplay", "200"),
        ("getReplay", "404"), ("cancelReplay", "200"), ("cancelReplay", "404"),
        ("cancelReplay", "409"), ("resumeReplay", "202"), ("resumeReplay", "409"),
    }  # fmt: skip
    assert wanted <= contract.seen


JOB = Job(
    id="job_00abcd000000000000000000", tenant="acme", type="demo.echo", status="completed", rev=3,
    created_at=SECOND, updated_at=2 * SECOND,
)  # fmt: skip
KEPT = StoredFile(path="p", name="results.json", size=1, sha256="0" * 64, content_type="text/plain")


@pytest.mark.parametrize("event", get_args(Event))
@pytest.mark.parametrize("payload", get_args(Payload))
@pytest.mark.parametrize(
    "job",
    [
        replace(JOB, results={"payload": [1, None]}, completed_at=SECOND, expires_at=9 * SECOND),
        replace(JOB, results_file=KEPT, metadata={"a": 1}, run_at=0),
        replace(JOB, status="failed", error="No.", error_code="no", attempt=2, max_attempts=2),
        replace(JOB, status="cancelled", cancel_requested=True, retry_of="job_", message="…"),
    ],
    ids=["completed", "large", "failed", "cancelled"],
)
async def test_callbacks_are_those_of_the_document(
    document: dict[str, Any], event: Event, payload: Payload, job: Job
) -> None:
    body = event_body(
        job,
        event=event,
        urls=Urls(PUBLIC_URL),
        sequence=4,
        ticket="1.0.x",
        at=3 * SECOND,
        payload=payload,
    )
    message = document["components"]["pathItems"][event]["post"]
    schema = message["requestBody"]["content"]["application/json"]["schema"]
    Contract(document).validate(httpx.Response(200, content=body).json(), schema)


@pytest.mark.parametrize("event", get_args(OperatorNotice))
@pytest.mark.parametrize("status", [None, 410])
def test_notices_to_the_operator_are_those_of_the_document(
    document: dict[str, Any], event: OperatorNotice, status: int | None
) -> None:
    notice = Notice(
        event=event,
        at=3 * SECOND,
        delivery="msg_1",
        endpoint="ep_1",
        origin="https://a.example",
        tenant="t1",
        reason="poison" if status is None else "gone",
        attempts=5,
        last_status=status,
        tags={"jobId": "job_1", "anything": [1]},
    )
    content = document["components"]["pathItems"][event]["post"]["requestBody"]["content"]
    schema = content["application/json"]["schema"]
    Contract(document).validate(json.loads(notice.body()), schema)


def test_a_challenge_and_its_answer_are_those_of_the_document(document: dict[str, Any]) -> None:
    asked = document["components"]["pathItems"][VERIFICATION]["post"]
    contract = Contract(document)
    body = json.loads(challenge_body("ep_1", "text", at=3 * SECOND))
    contract.validate(body, asked["requestBody"]["content"]["application/json"]["schema"])
    answer = asked["responses"]["2XX"]["content"]["application/json"]["schema"]
    contract.validate({"challenge": "text"}, answer)


def test_each_event_is_a_callback_and_a_webhook(document: dict[str, Any]) -> None:
    expected = {event: {"$ref": f"#/components/pathItems/{event}"} for event in get_args(Event)}
    notices = {
        event: {"$ref": f"#/components/pathItems/{event}"} for event in get_args(OperatorNotice)
    }
    asked = {VERIFICATION: {"$ref": f"#/components/pathItems/{VERIFICATION}"}}
    assert document["webhooks"] == {**expected, **asked, **notices}
    calling = [each for each in _operations(document) if "callbacks" in each]
    assert {each["operationId"] for each in calling} == {
        "submitJob", "submitApiDocuments", "submitApiVideosTranscode",
    }  # fmt: skip
    for operation in calling:
        assert operation["callbacks"] == {
            event: {"{$request.body#/callbackUrl}": item} for event, item in expected.items()
        }
