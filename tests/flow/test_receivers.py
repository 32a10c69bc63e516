"""The receivers' examples, each run as printed, called back by a running gateway."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest
from pytest_httpserver import HTTPServer

from config.clock import SECOND, SystemClock
from config.settings import environment
from delivery.signing import generate_secret, sign
from tests.processes import eventually, program
from tests.running import ROOT, Gateway, inbox

EXAMPLES: Final = ROOT / "gateway" / "examples"
COMMANDS: Final[Mapping[str, Sequence[str]]] = {
    "fastapi": [sys.executable, "-m", "uvicorn", "fastapi_receiver:app", "--port", "PORT"],
    "flask": [sys.executable, "-m", "flask", "--app", "flask_receiver", "run", "--port", "PORT"],
    "django": [sys.executable, "django_receiver.py", "runserver", "--noreload", "PORT"],
    "node": ["node", "receiver.mjs"],
}


@dataclass(slots=True, kw_only=True)
class Receiver:
    """A running example.

    Attributes:
        base: its address.
        log: what it says.
        secret: what it was told to trust, besides an older one.
    """

    base: str
    log: Path
    secret: str = ""

    @property
    def url(self) -> str:
        """Return the callback URL."""
        return f"{self.base}/callbacks"

    def said(self) -> str:
        """Return what it said so far."""
        return self.log.read_text()

    def taken(self, identifier: str) -> int:
        """Return how often the work of a job or of a callback was done."""
        lines = self.said().splitlines()
        return sum(line.startswith("took ") and identifier in line.split() for line in lines)

    def post(self, headers: Mapping[str, str], body: bytes, path: str = "/callbacks") -> int:
        """Send a callback; return the status of the answer."""
        url = self.base + path
        return httpx.post(url, headers=headers, content=body, trust_env=False).status_code


Start = Callable[[Gateway | None], Receiver]


@pytest.fixture(params=sorted(COMMANDS))
def command(request: pytest.FixtureRequest) -> Sequence[str]:
    found = COMMANDS[str(request.param)]
    program(found[0], "the example")
    return found


@contextmanager
def started(command: Sequence[str], log: Path, gateway: Gateway | None) -> Iterator[Receiver]:
    """Run an example that trusts the gateway, or whoever has its `secret` where there is none."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = str(held.getsockname()[1])
    receiver = Receiver(base=f"http://127.0.0.1:{port}", log=log)
    receiver.secret = gateway.secret(receiver.url) if gateway else generate_secret()
    complaints = log.with_suffix(".err")
    with log.open("wb") as said, complaints.open("wb") as complained:
        process = subprocess.Popen(
            [port if each == "PORT" else each for each in command],
            cwd=EXAMPLES,
            env=environment()
            | {
                "PORT": port,
                "PYTHONPATH": str(ROOT),
                "PYTHONDONTWRITEBYTECODE": "1",
                "WEBHOOK_SECRET": f"{generate_secret()} {receiver.secret}",
            },
            stdout=said,
            stderr=complained,
        )
        try:
            assert eventually(lambda: process.poll() is not None or _listens(int(port)))
            assert process.poll() is None, complaints.read_text()
            yield receiver
        finally:
            process.terminate()
            process.wait(20)


def _listens(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def receiver(command: Sequence[str], tmp_path: Path) -> Iterator[Receiver]:
    """Return an example that no gateway knows."""
    with started(command, tmp_path / "receiver.log", None) as receiver:
        yield receiver


BODY: Final = json.dumps(
    {"type": "job.completed", "timestamp": "2026-11-24T06:00:00.000Z", "data": {"jobId": "job_1"}}
).encode()


def signed(
    secret: str, body: bytes = BODY, message_id: str = "msg_1", age: int = 0
) -> dict[str, str]:
    """Return the headers that the gateway's signer gives a callback `age` seconds ago."""
    timestamp = SystemClock().now() // SECOND - age
    signature = sign([secret], message_id=message_id, timestamp=timestamp, body=body)
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature,
    }


def test_a_gateways_callbacks_are_taken_in(
    gateway: Gateway, command: Sequence[str], tmp_path: Path
) -> None:
    with started(command, tmp_path / "receiver.log", gateway) as receiver:
        job = gateway.submit(
            type="demo.echo", input={"payload": "für uns"}, callbackUrl=receiver.url
        )
        shown = gateway.called_back(job["jobId"])
        assert shown["callback"]["lastStatusCode"] == 204
        assert eventually(lambda: receiver.taken(job["jobId"]) == 1), receiver.said()

        retired = gateway.submit(
            type="demo.echo", input={"payload": 1}, callbackUrl=f"{receiver.url}/retired"
        )
        shown = gateway.called_back(retired["jobId"], "dead")
        assert shown["callback"]["lastStatusCode"] == 410
        assert receiver.taken(retired["jobId"]) == 0


def test_a_gateways_challenge_is_answered(
    gateway: Gateway, command: Sequence[str], tmp_path: Path
) -> None:
    with started(command, tmp_path / "receiver.log", gateway) as receiver:
        made = gateway.client.post("/v1/endpoints", json={"url": receiver.url}).json()
        assert made["verified"] is False
        path = f"/v1/endpoints/{made['id']}"
        asked = gateway.client.post(f"{path}/verify", json={"url": receiver.url})
        assert asked.status_code == 202, asked.text
        assert eventually(lambda: gateway.client.get(path).json()["verified"])
        assert receiver.taken(asked.json()["id"]) == 0


def test_each_callback_is_taken_in_once(receiver: Receiver) -> None:
    for message_id in ("msg_1", "msg_1", "msg_2", "msg_1"):
        assert receiver.post(signed(receiver.secret, message_id=message_id), BODY) == 204
    assert eventually(lambda: receiver.taken("msg_2") == 1), receiver.said()
    assert receiver.taken("msg_1") == 1


def test_a_rotations_signatures_are_all_looked_at(receiver: Receiver) -> None:
    headers = signed(receiver.secret)
    good = headers["webhook-signature"]
    headers["webhook-signature"] = f"v1a,AAAA v1,!!! v1,AAAA v2,{good[3:]} {good}"
    assert receiver.post(headers, BODY) == 204


def test_what_is_forged_or_old_is_refused(receiver: Receiver) -> None:
    secret = receiver.secret
    good = signed(secret)
    refused = {
        "another body": receiver.post(good, BODY.replace(b"job_1", b"job_2")),
        "a byte more": receiver.post(good, BODY + b"\n"),
        "another secret": receiver.post(signed(generate_secret()), BODY),
        "another id": receiver.post(good | {"webhook-id": "msg_2"}, BODY),
        "too old": receiver.post(signed(secret, age=302), BODY),
        "too new": receiver.post(signed(secret, age=-302), BODY),
        "a later timestamp": receiver.post(
            good | {"webhook-timestamp": str(int(good["webhook-timestamp"]) + 1)}, BODY
        ),
        "another version": receiver.post(
            good | {"webhook-signature": good["webhook-signature"].replace("v1,", "v2,")}, BODY
        ),
        "nothing": receiver.post({}, BODY),
        "forged for a retired URL": receiver.post({}, BODY, "/callbacks/retired"),
    }
    assert set(refused.values()) == {401}, refused
    assert receiver.post(good, BODY) == 204
    assert eventually(lambda: receiver.taken("job_1") == 1), receiver.said()
    assert receiver.taken("job_2") == 0
    # Whoever was refused is not told why; the log is.
    assert receiver.said().count("refused:") == len(refused)


def test_too_large_a_body_is_not_taken(receiver: Receiver) -> None:
    body = b" " * 1_048_577
    assert receiver.post(signed(receiver.secret, body), body) == 413
    assert receiver.post(signed(receiver.secret), BODY) == 204


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A callback on disk."""

    folder: Path

    def keep(self, headers: Mapping[str, str], body: bytes) -> None:
        """Write down a callback as it came."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        (self.folder / "headers.txt").write_text(lines)
        (self.folder / "body.json").write_bytes(body)

    def verify(self, secret: str, *more: str) -> tuple[int, str]:
        """Run the shell's example; return its exit status and what it says."""
        ended = subprocess.run(
            [str(EXAMPLES / "verify.sh"), "headers.txt", "body.json", *more],
            cwd=self.folder,
            env=environment() | {"WEBHOOK_SECRET": secret},
            capture_output=True,
            text=True,
            check=False,
        )
        return ended.returncode, (ended.stdout + ended.stderr).strip()


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return Stored(folder=tmp_path)


def test_the_shell_verifies_a_gateways_callback(
    gateway: Gateway, httpserver: HTTPServer, stored: Stored
) -> None:
    box = inbox(httpserver, "/shell")
    secret = gateway.secret(box.url)
    job = gateway.submit(type="demo.echo", input={"payload": "für uns"}, callbackUrl=box.url)
    gateway.called_back(job["jobId"])
    [(headers, body)] = box.received
    stored.keep(headers, body)
    assert stored.verify(f"{generate_secret()} {secret}") == (
        0,
        f"genuine: {headers['webhook-id']}",
    )
    assert stored.verify(generate_secret())[0] == 1
    at = int(headers["webhook-timestamp"])
    assert stored.verify(secret, str(at + 300))[0] == 0
    assert stored.verify(secret, str(at + 301)) == (1, "refused: webhook-timestamp is 301 s old")
    assert stored.verify(secret, str(at - 301))[0] == 1
    stored.keep(headers, body + b"\n")
    assert stored.verify(secret)[0] == 1


def test_the_shell_refuses_what_is_malformed(stored: Stored) -> None:
    secret = generate_secret()
    good = signed(secret)
    for name, value in [
        ("webhook-id", "msg_2"),
        ("webhook-id", ""),
        ("webhook-timestamp", ""),
        ("webhook-timestamp", "-1"),
        ("webhook-timestamp", "9" * 40),
        ("webhook-timestamp", "$(touch here)"),
        ("webhook-signature", ""),
        ("webhook-signature", "* v1,* %s \\ v1,AAAA"),
        ("webhook-signature", good["webhook-signature"].replace("v1,", "v2,")),
    ]:
        stored.keep(good | {name: value}, BODY)
        status, said = stored.verify(secret)
        assert (status, said.partition(":")[0]) == (1, "refused"), (name, value, said)
    stored.keep({name.upper(): value for name, value in good.items()}, BODY)
    assert stored.verify(secret) == (0, "genuine: msg_1")
    stored.keep(good | {"webhook-signature": f"v1,AAAA {good['webhook-signature']}"}, BODY)
    assert stored.verify(secret)[0] == 0
    assert stored.verify("whsec_AAAA")[0] == 2
    assert stored.verify("secret")[0] == 2
    assert not (stored.folder / "here").exists()
