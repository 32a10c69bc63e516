"""The examples of every command's help do what they say, as they are printed.

What is replaced: identifiers that end in `…` by fresh ones, in a state that the command is about;
the addresses of receivers by that of one that listens; and ports by free ones.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import httpx
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from config.clock import SystemClock
from delivery.signing import generate_secret, sign
from tests.gateway.cli.tree import Place, commands
from tests.processes import eventually
from tests.readmes import Checkout
from tests.running import API_KEY, ROOT, Gateway, inbox

ROLES = {"api", "relay", "worker", "delivery"}
EXAMPLES = [
    (place, example) for place, command in commands().items() for example in command.examples
]
SHORT = [(place, example) for place, example in EXAMPLES if place[0] not in {*ROLES, "up"}]
LONG = [(place, example) for place, example in EXAMPLES if place[0] in ROLES]
UP = [example for place, example in EXAMPLES if place == ("up",)]

BODY = b'{"type": "job.completed", "timestamp": "2030-01-31T12:00:00.000Z", "data": {}}'
RECEIVERS = re.compile(r"http://127\.0\.0\.1:9000/callbacks|https://client\.example/hooks")
GIVEN = re.compile(r"(job|msg|ep|key|rpl)_00…")

_NUMBERS = count()


def named(examples: list[tuple[Place, str]]) -> pytest.MarkDecorator:
    ids = [example.splitlines()[0] for _, example in examples]
    return pytest.mark.parametrize(("place", "example"), examples, ids=ids)


@dataclass(slots=True)
class Desk:
    """Where somebody sits who types the examples."""

    gateway: Gateway
    checkout: Checkout
    receiver: str
    environ: Mapping[str, str]

    def written(self, place: Place, example: str) -> str:
        """Return the example with what it is about put in."""
        if place[0] == "dead-letters":
            # A filter would find what others left, whose receivers are gone for good.
            self._purged()
            self._dead()
        example = RECEIVERS.sub(self.receiver, example)
        return GIVEN.sub(lambda found: self._made(found[1], place), example)

    def _made(self, kind: str, place: Place) -> str:
        if place[0] == "dead-letters":
            return self._cancelled_replay() if kind == "rpl" else self._dead()
        if kind == "job" and place == ("jobs", "cancel"):
            return self._submitted(runAt="2100-01-01T00:00:00Z")
        return self.given(kind, place)

    def given(self, kind: str, place: Place) -> str:
        """Return the identifier of something that `place` can do something about."""
        match kind, place:
            case "job", ("jobs", "retry"):
                job_id = self._submitted(runAt="2100-01-01T00:00:00Z")
                self.gateway.client.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()
                return job_id
            case "job", ("deliveries", "list"):
                return self._called_back()
            case "job", _:
                return self._submitted(callbackUrl=self.receiver)
            case "msg", _:
                job_id = self._called_back()
                found = self.gateway.client.get(f"/v1/jobs/{job_id}/deliveries").json()["items"]
                return str(found[0]["id"])
            case "ep", _:
                # What is paused is nobody else's.
                url = "http://127.0.0.1:9/" if place[1] == "pause" else self.receiver
                made = self.gateway.client.post("/v1/endpoints", json={"url": url})
                endpoint = str(made.json()["id"])
                if place[1] == "enable":
                    self._disabled(endpoint)
                return endpoint
            case _:
                made = self.gateway.client.post("/v1/admin/keys", json={"scopes": ["read"]})
                return str(made.json()["id"])

    def _disabled(self, endpoint: str) -> None:
        change = {"disabledUrls": [self.receiver]}
        self.gateway.client.patch(f"/v1/endpoints/{endpoint}", json=change).raise_for_status()

    def _called_back(self) -> str:
        job_id = self._submitted(callbackUrl=self.receiver)
        self.gateway.called_back(job_id)
        return job_id

    def _purged(self) -> None:
        """Leave no delivery among the dead letters."""
        client = self.gateway.client
        made = client.post("/v1/replays", json={"action": "purge", "all": True})
        made.raise_for_status()
        there = f"/v1/replays/{made.json()['id']}"
        assert eventually(lambda: client.get(there).json()["state"] == "completed")

    def _dead(self) -> str:
        """Return a delivery that its receiver wanted no more of, and takes again."""
        job_id = self._submitted(callbackUrl=f"{self.receiver}/gone/{next(_NUMBERS)}")
        self.gateway.called_back(job_id, "dead")
        client = self.gateway.client
        [found] = client.get(f"/v1/jobs/{job_id}/deliveries").json()["items"]
        again = client.patch(f"/v1/endpoints/{found['endpointId']}", json={"disabledUrls": []})
        again.raise_for_status()
        return str(found["id"])

    def _cancelled_replay(self) -> str:
        ids = [self._dead(), self._dead()]
        client = self.gateway.client
        made = client.post("/v1/replays", json={"ids": ids, "rate": 0.5}).json()
        client.post(f"/v1/replays/{made['id']}/cancel").raise_for_status()
        return str(made["id"])

    def _submitted(self, **members: object) -> str:
        job = {"type": "demo.echo", "input": {"payload": 1, "seconds": 0.2}, **members}
        return str(self.gateway.submit(**job)["jobId"])

    def run(self, line: str) -> None:
        """Run a line to its end, which must be a good one."""
        ran = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eu", "-o", "pipefail", "-c", line],
            cwd=self.checkout.root,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ran.returncode == 0, f"{line}\n{ran.stdout}\n{ran.stderr}"
        assert ran.stdout or ">" in line or "$(" in line

    @contextmanager
    def staying(self, line: str) -> Iterator[Callable[[], str]]:
        """Run a line that stays; press Ctrl-C at the end of the block, and see it end well."""
        log = self.checkout.root.with_name("staying.log")
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "--noprofile", "--norc", "-c", f"exec env {line}"],
                cwd=self.checkout.root,
                env=self.environ,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

        def said() -> str:
            assert process.poll() is None, log.read_text()
            return log.read_text()

        try:
            yield said
            process.send_signal(signal.SIGTERM)
            assert process.wait(40) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def room(whole: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A checkout whose gateway runs, with the folders and objects that examples speak of."""
    checkout = Checkout(tmp_path_factory.mktemp("desk"))
    root = checkout.root
    subprocess.run([str(root / "scripts" / "setup")], check=True, env=checkout.environ)
    (root / ".data").symlink_to(whole.data)
    shutil.copy(ROOT / "scripts" / "sample" / "river-restoration.pdf", root / "report.pdf")
    for folder in (".zfunc", ".config/fish/completions"):
        (root / folder).mkdir(parents=True)
    configure(root, whole)
    failing = {"payload": 1, "fail": "No more paper."}
    whole.ended(whole.submit(type="demo.echo", input=failing, maxAttempts=1)["jobId"])
    acme = {"scopes": ["read"], "tenant": "acme"}
    whole.client.post("/v1/admin/keys", json=acme).raise_for_status()
    environ = {
        **checkout.environ,
        "PATH": f"{root / '.venv' / 'bin'}:{checkout.environ['PATH']}",
        "HOME": str(root),
        "GATEWAY_API_KEY": API_KEY,
    }
    return Desk(whole, checkout, "", environ)


@pytest.fixture
def desk(room: Desk, httpserver: HTTPServer) -> Desk:
    """The same with somebody who is called back, and a callback that came."""
    root = room.checkout.root
    (root / "input.json").write_text('{"payload": 42}')
    (root / "callback.json").write_bytes(BODY)
    secret = generate_secret()
    (root / "receiver.secret").write_text(secret + "\n")
    now = SystemClock().now() // 1_000_000
    for name, at in (("callback.headers", now), ("old.headers", now - 3600)):
        lines = [f"{header}: {value}" for header, value in signature(secret, at).items()]
        (root / name).write_text("\n".join(lines) + "\n")
    headers = signature(secret, now)
    environ = {
        **room.environ,
        "WEBHOOK_SECRET": secret,
        "ID": headers["webhook-id"],
        "TIMESTAMP": headers["webhook-timestamp"],
        "SIGNATURE": headers["webhook-signature"],
    }
    inbox(httpserver, "/")
    httpserver.expect_request(re.compile("/callbacks/gone/.*")).respond_with_handler(gone_once())
    return replace(room, receiver=inbox(httpserver, "/callbacks").url, environ=environ)


def gone_once() -> Callable[[Request], Response]:
    """Return a receiver of which every path is gone when it is asked first."""
    asked: set[str] = set()

    def answer(request: Request) -> Response:
        is_new = request.path not in asked
        asked.add(request.path)
        return Response(status=410 if is_new else 204)

    return answer


def signature(secret: str, at: int) -> dict[str, str]:
    signed = sign([secret], message_id="msg_1", timestamp=at, body=BODY)
    return {"webhook-id": "msg_1", "webhook-timestamp": str(at), "webhook-signature": signed}


def configure(root: Path, gateway: Gateway) -> None:
    """Keep production settings on the stores of the gateway that runs."""
    record = gateway.record()
    settings = {
        "public_url": "https://gateway.example.com",
        "store.url": record["storeUrl"],
        "store.partitions": record["partitions"],
        "broker.url": record["brokerUrl"],
        "artifacts.url": (gateway.data / "artifacts").as_uri(),
        "artifacts.shared": True,
        "sealing.keys_file": str(gateway.data / "sealing.key"),
    }
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in settings.items()]
    (root / "production.toml").write_text("".join(lines))


@named(SHORT)
def test_an_example_does_what_it_says(desk: Desk, place: Place, example: str) -> None:
    desk.run(desk.written(place, example))


@named(LONG)
def test_a_process_starts_and_stops(desk: Desk, place: Place, example: str) -> None:
    [role] = place
    port = free_port()
    example = re.sub(r"GATEWAY_API_PORT=\d+", f"GATEWAY_API_PORT={port}", example)
    desk.environ = {**desk.environ, "GATEWAY_API_PORT": str(port)}
    before = threads(desk.gateway)
    with desk.staying(example) as said:
        looks = {
            "api": lambda: lives(port),
            "relay": lambda: "relay.started" in said(),
            "worker": lambda: threads(desk.gateway) > before,
            "delivery": lambda: "delivery.started" in said(),
        }
        assert eventually(lambda: bool(said() is not None and looks[role]()))


@pytest.mark.parametrize("example", UP)
def test_everything_starts_and_stops(tmp_path: Path, example: str) -> None:
    checkout = Checkout(tmp_path)
    subprocess.run([str(checkout.root / "scripts" / "setup")], check=True, env=checkout.environ)
    example = re.sub(r"--port [1-9]\d*", f"--port {free_port()}", example)
    log = checkout.root.with_name("up.log")
    path = f"{checkout.root / '.venv' / 'bin'}:{checkout.environ['PATH']}"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-c", f"exec {example}"],
            cwd=checkout.root,
            env={**checkout.environ, "PATH": path},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        if "--once" not in example:
            # The demonstration comes first, as long as it takes.
            assert any(
                eventually(lambda: "Ctrl-C stops it." in log.read_text()) for _ in range(3)
            ), log.read_text()
            os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def lives(port: int) -> bool:
    try:
        url = f"http://127.0.0.1:{port}/livez"
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def threads(gateway: Gateway) -> int:
    """Return how many worker processes have said that they live."""
    with gateway.connection("store") as store:
        return int(store.hlen("gw:{meta}:threads"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])
