"""The sample receiver, by real requests: what it takes in, and what it refuses."""

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from urllib.parse import urlsplit

import httpx
import pytest

from config.clock import SystemClock
from delivery.signing import generate_secret, sign
from scripts.receiver import MAX_BODY_BYTES, Receiver
from tests.processes import PATIENCE

BODY = json.dumps({"type": "job.completed", "data": {"jobId": "job_1"}}).encode()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def headers_for(secret: str, body: bytes = BODY, message_id: str = "msg_1") -> dict[str, str]:
    seconds = SystemClock().now() // 1_000_000
    signature = sign([secret], message_id=message_id, timestamp=seconds, body=body)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": signature,
    }


def post(receiver: Receiver, headers: dict[str, str], body: bytes = BODY) -> int:
    return httpx.post(receiver.url, headers=headers, content=body, trust_env=False).status_code


def test_a_signed_callback_is_taken_in(receiver: Receiver) -> None:
    secret = generate_secret()
    receiver.trust(secret)
    assert post(receiver, headers_for(secret)) == 204
    callback = receiver.wait_for("job_1", seconds=5)
    assert callback is not None
    assert (callback.event, callback.webhook_id) == ("job.completed", "msg_1")
    assert callback.verified
    assert not callback.repeated


def test_a_repeated_one_is_known(receiver: Receiver) -> None:
    secret = generate_secret()
    receiver.trust(secret)
    heard = [receiver.take_in(headers_for(secret), BODY) for _ in range(2)]
    assert [callback.repeated for callback in heard] == [False, True]


@pytest.mark.parametrize("fault", ["other secret", "other body", "no headers", "nothing trusted"])
def test_what_does_not_verify_is_refused(receiver: Receiver, fault: str) -> None:
    secret = generate_secret()
    if fault != "nothing trusted":
        receiver.trust(secret)
    headers = {
        "other secret": headers_for(generate_secret()),
        "other body": headers_for(secret, b"{}"),
        "no headers": {},
        "nothing trusted": headers_for(secret),
    }[fault]
    assert post(receiver, headers) == 401
    callback = receiver.wait_for("job_1", seconds=5)
    assert callback is not None
    assert callback.fault


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b'{"type": 1}', b"[" * 100_000])
def test_any_signed_body_is_survived(receiver: Receiver, body: bytes) -> None:
    secret = generate_secret()
    receiver.trust(secret)
    assert post(receiver, headers_for(secret, body), body) == 204
    assert post(receiver, headers_for(secret)) == 204


def test_too_large_a_body_is_refused_unread(receiver: Receiver) -> None:
    connection = HTTPConnection(urlsplit(receiver.url).netloc, timeout=PATIENCE)
    connection.putrequest("POST", urlsplit(receiver.url).path)
    connection.putheader("Content-Length", str(MAX_BODY_BYTES + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_nothing_comes_for_another_job(receiver: Receiver) -> None:
    assert receiver.wait_for("job_2", seconds=0) is None
