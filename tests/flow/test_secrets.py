"""Secrets planted in a whole gateway, and looked for in everything that it writes."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from pytest_httpserver import HTTPServer
from redis import Redis
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect
from werkzeug import Request, Response

from tests.flow.conftest import FAST
from tests.running import API_KEY, Gateway, running

SEALING = b"planted-sealing-key-of-32-bytes!"
QUERY = "planted-query-of-a-callback"
HEADER = "planted-value-of-a-custom-header"
UPSTREAM = "planted-header-of-an-upstream"
FETCHED = "planted-query-of-what-is-fetched"
GUESSED = "gwk_planted0guess0of0a0key00000000000"
FORGED = '\x1b[31mplanted\r\n{"level":"forged"}'

Seen = list[tuple[str, str]]


@dataclass(slots=True)
class Watched:
    """A gateway with what it told, and the secrets that only a run makes."""

    gateway: Gateway
    answers: Seen = field(default_factory=list)
    made: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send a request, and keep what is answered."""
        answer = self.gateway.client.request(method, path, **more)
        self.answers.append((f"{method} {path.partition('?')[0]}", answer.text))
        return answer


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Run a gateway through all that could make it say a secret, and stop it."""
    with HTTPServer() as receiver, socket.create_server(("127.0.0.1", 0)) as deaf:
        dead = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        deaf.close()
        settings = FAST | {
            "GATEWAY_SEALING_KEYS": "one:" + base64.b64encode(SEALING).decode(),
            "GATEWAY_HTTP_REQUEST_ALLOW_ANY_URL": "true",
            "GATEWAY_UPSTREAMS": json.dumps(
                {
                    "dead": {"base_url": dead, "headers": {"x-key": UPSTREAM}},
                    "echo": {
                        "base_url": receiver.url_for("/echo"),
                        "headers": {"x-key": UPSTREAM},
                    },
                }
            ).replace('": ', '" = '),
        }
        data = tmp_path_factory.mktemp("secrets") / "data"
        with running(data, settings) as gateway:
            seen = Watched(gateway)
            _exercise(seen, receiver, dead)
            seen.made["store"] = "\n".join(_stored(gateway))
        yield seen


def _exercise(seen: Watched, receiver: HTTPServer, dead: str) -> None:
    def echo(request: Request) -> Response:
        return Response(f"you sent {dict(request.headers)} to {request.url}", status=500)

    receiver.expect_request("/echo").respond_with_handler(echo)
    receiver.expect_request("/ok").respond_with_data("ok")
    _callbacks(seen, receiver, dead)
    _requests(seen, receiver, dead)
    _keys(seen)
    _tickets(seen)
    _refusals(seen)


def _callbacks(seen: Watched, receiver: HTTPServer, dead: str) -> None:
    gateway = seen.gateway
    seen.made["signing secret"] = gateway.secret(receiver.url_for("/ok"))
    for base, status in (
        (receiver.url_for("/ok"), "delivered"),
        (receiver.url_for("/echo"), "dead"),
        (f"{dead}/hook", "dead"),
    ):
        job = seen.ask(
            "POST",
            "/v1/jobs",
            json={
                "type": "demo.echo",
                "input": {"payload": 1},
                "callbackUrl": f"{base}?key={QUERY}",
                "callback": {"headers": {"x-key": HEADER}},
            },
        ).json()["jobId"]
        gateway.called_back(job, status)
        for path in ("", "/deliveries", "/result"):
            seen.ask("GET", f"/v1/jobs/{job}{path}")
        for delivery in seen.ask("GET", f"/v1/jobs/{job}/deliveries").json()["items"]:
            seen.ask("GET", f"/v1/deliveries/{delivery['id']}")
            seen.ask("POST", f"/v1/deliveries/{delivery['id']}/redeliver")
    seen.ask("GET", "/v1/endpoints")
    for arguments in (("list",), ("list", "--json"), ("stats",)):
        ended = gateway.dead_letters(*arguments)
        seen.answers.append((f"dead_letters {arguments}", ended.stdout + ended.stderr))


def _requests(seen: Watched, receiver: HTTPServer, dead: str) -> None:
    for given in (
        {"upstream": "dead"},
        {"upstream": "echo", "method": "POST"},
        {"upstream": f"{dead}/?key={FETCHED}"},
        {"upstream": receiver.url_for("/echo") + f"?key={FETCHED}"},
    ):
        job = seen.gateway.submit(type="http.request", input=given, maxAttempts=1)["jobId"]
        document = seen.gateway.ended(job)
        if given["upstream"] != "echo":
            seen.answers.append(
                (f"http.request {given['upstream'][:8]}", json.dumps(document["error"]))
            )
    job = seen.gateway.submit(
        type="video.transcode",
        input={"videoUrl": f"{dead}/?key={FETCHED}", "formats": ["480p"]},
        maxAttempts=1,
    )["jobId"]
    seen.answers.append(("video.transcode", json.dumps(seen.gateway.ended(job)["error"])))


def _keys(seen: Watched) -> None:
    made = seen.gateway.client.post("/v1/admin/keys", json={"scopes": ["read"]})
    assert made.status_code == 201, made.text
    seen.made["api key"] = made.json()["key"]
    for token in (seen.made["api key"], GUESSED, API_KEY):
        headers = {"Authorization": f"Bearer {token}"}
        for method, path in (("GET", "/v1/jobs"), ("POST", "/v1/admin/keys"), ("GET", "/v1/x")):
            seen.ask(method, path, headers=headers)
    seen.ask("GET", "/v1/admin/keys")
    seen.ask("DELETE", f"/v1/admin/keys/{made.json()['id']}")


def _tickets(seen: Watched) -> None:
    gateway = seen.gateway
    job, other = (gateway.submit(type="demo.echo", input={"payload": 1})["jobId"] for _ in range(2))
    for each in (job, other):
        gateway.ended(each)
    made = gateway.client.post(f"/v1/jobs/{job}/ticket")
    ticket = seen.made["ticket"] = made.json()["ticket"]
    with httpx.Client(base_url=gateway.client.base_url) as anyone:
        for path in (f"/v1/jobs/{job}", f"/v1/jobs/{other}", f"/v1/jobs/{job}/events", "/v1/jobs"):
            with anyone.stream("GET", path, params={"ticket": ticket}) as answer:
                if answer.status_code >= 400:
                    seen.answers.append((path, answer.read().decode()))
    address = str(gateway.client.base_url).replace("http", "ws")
    for each in (job, other):
        with suppress(WebSocketException), connect(f"{address}/v1/jobs/{each}?ticket={ticket}"):
            pass


def _refusals(seen: Watched) -> None:
    base = {"type": "demo.echo", "input": {"payload": 1}}
    for more in (
        {"callbackUrl": f"https://h.example:0/?key={QUERY}"},
        {"callbackUrl": f"https://u:{QUERY}@h.example/"},
        {"callbackUrl": "https://h.example/", "callback": {"headers": {"Host": HEADER}}},
        {"callbackUrl": "https://h.example/", "callback": {"headers": {"x": HEADER + "\r\n"}}},
        {"callbackUrl": "https://h.example/", "callback": {"headers": {"x": [HEADER]}}},
        {"type": "http.request", "input": {"upstream": f"https://u:{FETCHED}@h.example/"}},
    ):
        assert seen.ask("POST", "/v1/jobs", json=base | more).status_code == 422
    seen.ask(
        "POST",
        "/v1/jobs",
        content=f'{{"a": "{HEADER}", "a": "{HEADER}"',
        headers={"Content-Type": "application/json"},
    )
    for name in (FORGED, "line\nend", "\x1b]0;title\x07", "\u202ereversed", "\u2028"):
        seen.ask("POST", "/v1/files", params={"name": name}, content=b"x")
        seen.ask("POST", "/v1/admin/keys", json={"name": name, "scopes": ["read"]})
        seen.ask("POST", "/v1/jobs", json=base | {"metadata": {name: name}})
        seen.ask("POST", "/v1/jobs", json=base | {"type": name})
        seen.ask("GET", f"/v1/jobs/{quote(name)}")
    seen.ask("GET", f"/v1/jobs/nothing?key={QUERY}")
    seen.ask("GET", f"/nowhere?key={QUERY}")
    seen.ask("PUT", f"/v1/jobs?key={QUERY}")
    seen.ask(
        "GET", "/v1/jobs", headers={"X-Request-Id": "planted\x1b[31m", "User-Agent": "\x1b[31m"}
    )
    with socket.create_connection(
        (seen.gateway.client.base_url.host, seen.gateway.client.base_url.port or 0)
    ) as raw:
        raw.sendall(f"GET /?key={QUERY} NONSENSE\r\n\x1b[31m\r\n\r\n".encode())
        raw.recv(4_096)
    failing = seen.gateway.submit(**base | {"input": {"payload": 1, "fail": FORGED}}, maxAttempts=1)
    seen.gateway.ended(failing["jobId"])


def _stored(gateway: Gateway) -> Iterable[str]:
    """Give every value in both stores, uncompressed, unlike in a dump."""
    for role in ("store", "broker"):
        with gateway.connection(role) as connection:
            for key in connection.scan_iter(count=1_000):
                yield f"{key!r} {_value(connection, key)!r}"


def _value(connection: Redis, key: bytes) -> Any:
    read: dict[Any, Any] = {
        b"string": lambda: connection.get(key),
        b"hash": lambda: connection.hgetall(key),
        b"set": lambda: connection.smembers(key),
        b"zset": lambda: connection.zrange(key, 0, -1, withscores=True),
        b"list": lambda: connection.lrange(key, 0, -1),
        b"stream": lambda: connection.xrange(key),
        b"none": lambda: None,
    }
    return read[connection.type(key)]()


def _secrets(seen: Watched) -> dict[str, list[str]]:
    """Return every secret with the ways in which it could be written."""
    signing = base64.b64decode(seen.made["signing secret"].removeprefix("whsec_"))
    return {
        "bootstrap key": [API_KEY],
        "sealing key": [SEALING.decode(), base64.b64encode(SEALING).decode(), SEALING.hex()],
        "signing secret": [
            seen.made["signing secret"],
            seen.made["signing secret"].removeprefix("whsec_"),
            signing.hex(),
            repr(signing)[2:-1],
        ],
        "api key": [seen.made["api key"]],
        "guessed key": [GUESSED],
        "ticket": [seen.made["ticket"]],
        "callback's query": [QUERY],
        "custom header": [HEADER],
        "upstream's header": [UPSTREAM],
    }


KINDS = [
    *("bootstrap key", "sealing key", "signing secret", "api key", "guessed key", "ticket"),
    *("callback's query", "custom header", "upstream's header"),
]


def _logs(seen: Watched) -> dict[str, str]:
    folder = seen.gateway.data / "log"
    logs = {each.name: each.read_text() for each in folder.iterdir()}
    up = seen.gateway.data.parent / f"{seen.gateway.data.name}.up.log"
    assert {"api.log", "relay.log", "worker.log", "delivery.log"} <= set(logs)
    return logs | {"up": up.read_text()}


def _are_in(spellings: Iterable[str], text: str) -> bool:
    return any(each in text for each in spellings)


@pytest.mark.parametrize("kind", [*KINDS, "fetched query"])
def test_no_secret_is_in_a_log(kind: str, watched: Watched) -> None:
    spellings = (_secrets(watched) | {"fetched query": [FETCHED]})[kind]
    found = [name for name, text in _logs(watched).items() if _are_in(spellings, text)]
    # `up` shows its key to whoever started it; that is no log of a process.
    assert found == (["up"] if kind == "bootstrap key" else [])


@pytest.mark.parametrize("kind", KINDS)
def test_no_secret_is_in_the_stores(kind: str, watched: Watched) -> None:
    assert "gw:{p00}" in watched.made["store"]
    lines = watched.made["store"].splitlines()
    assert [line[:80] for line in lines if _are_in(_secrets(watched)[kind], line)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_no_secret_is_in_an_answer(kind: str, watched: Watched) -> None:
    spellings = _secrets(watched)[kind]
    assert len(watched.answers) > 40
    assert [where for where, text in watched.answers if _are_in(spellings, text)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_no_secret_is_in_a_file(kind: str, watched: Watched) -> None:
    """What is on disk, append-only files included; the keys that `up` made have files of theirs."""
    spellings = [each.encode() for each in _secrets(watched)[kind]]
    meant = {"api.key", "sealing.key"}
    found = [
        str(each.relative_to(watched.gateway.data))
        for each in watched.gateway.data.rglob("*")
        if each.is_file() and each.name not in meant
        if any(spelling in each.read_bytes() for spelling in spellings)
    ]
    assert found == []


def test_every_line_of_a_log_is_one_of_json(watched: Watched) -> None:
    for name, text in _logs(watched).items():
        if name == "up" or "store" in name or "broker" in name:
            continue
        for line in text.splitlines():
            record = json.loads(line)
            assert {"ts", "level", "role", "event"} <= set(record), line
            assert record["level"] != "forged"
            assert record["level"] != "error" or name != "api.log", line
            assert line.isascii()
            assert line.isprintable()


def test_lines_name_their_request_and_their_job(watched: Watched) -> None:
    lines = [
        json.loads(line)
        for name, text in _logs(watched).items()
        if name in {"api.log", "worker.log", "delivery.log"}
        for line in text.splitlines()
    ]
    by_role = {
        role: [line for line in lines if line["role"] == role]
        for role in ("api", "worker", "delivery")
    }
    audited = [line for line in by_role["api"] if line["event"].startswith(("audit.", "endpoint."))]
    assert audited
    assert [line for line in audited if "request" not in line] == []
    jobs = [line for line in by_role["worker"] if line["event"].startswith("job.")]
    assert jobs
    assert [line for line in jobs if "job" not in line] == []
    attempts = [line for line in by_role["delivery"] if line["event"] == "delivery.attempt"]
    assert len(attempts) > 5
    assert [line for line in attempts if not {"delivery", "tenant", "endpoint"} <= set(line)] == []
