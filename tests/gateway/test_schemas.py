"""A submission is read strictly, and each fault is named by JSON pointer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.clock import SECOND
from gateway.faults import Fault, pointer
from gateway.problems import Problem
from gateway.schemas import body
from gateway.schemas.endpoints import EndpointRequest
from gateway.schemas.jobs import DEFAULT_EVENTS, SubmitRequest, parse_submit

GOOD: dict[str, Any] = {"type": "demo.echo", "input": {"payload": 1}}
URL = {"callbackUrl": "https://receiver.example/"}


def parse(**members: object) -> SubmitRequest:
    """Return a good submission with `members` laid over it."""
    return parse_submit({**GOOD, **members}, metadata_limit=100)


def test_the_least_that_is_needed() -> None:
    request = parse()
    assert request.type == "demo.echo"
    assert request.input == {"payload": 1}
    assert request.priority == "normal"
    assert request.on_complete == "redirect"
    assert request.callback_url is None


def test_everything() -> None:
    request = parse(
        callbackUrl="https://receiver.example/hook",
        callback={
            "events": ["job.failed", "job.expiring"],
            "headers": {"X-Tenant": "7"},
            "signature": "v1",
            "payload": "standard",
        },
        priority="high",
        runAt="1970-01-01T01:00:10.5+01:00",
        timeoutSeconds=1.5,
        queueTimeoutSeconds=0.5,
        resultTtlSeconds=60,
        maxAttempts=2,
        metadata={"order": 7},
        onComplete="inline",
    )
    assert request.callback is not None
    assert request.callback.events == ["job.failed", "job.expiring"]
    assert request.run_at == 10 * SECOND + 500_000
    assert request.timeout_seconds == 1.5
    assert request.queue_timeout_seconds == 0.5
    assert request.on_complete == "inline"


def test_null_is_as_good_as_absent() -> None:
    names = ["callbackUrl", "callback", "runAt", "timeoutSeconds", "maxAttempts", "metadata"]
    request = parse(**dict.fromkeys(names))
    assert request.run_at is None
    assert request.callback is None


def test_the_default_events() -> None:
    request = parse(**URL, callback={})
    assert request.callback is not None
    assert tuple(request.callback.events) == DEFAULT_EVENTS


@pytest.mark.parametrize(
    ("members", "code", "where"),
    [
        ({"type": 5}, "invalid_request", "/type"),
        ({"type": ""}, "invalid_request", "/type"),
        ({"input": []}, "invalid_request", "/input"),
        ({"input": None}, "invalid_request", "/input"),
        ({"priority": "urgent"}, "invalid_request", "/priority"),
        ({"runAt": "tomorrow"}, "invalid_request", "/runAt"),
        ({"runAt": "2030-01-31T12:00:00"}, "invalid_request", "/runAt"),
        ({"runAt": 5}, "invalid_request", "/runAt"),
        ({"timeoutSeconds": 0}, "invalid_request", "/timeoutSeconds"),
        ({"timeoutSeconds": "5"}, "invalid_request", "/timeoutSeconds"),
        ({"timeoutSeconds": True}, "invalid_request", "/timeoutSeconds"),
        ({"resultTtlSeconds": -1}, "invalid_request", "/resultTtlSeconds"),
        ({"maxAttempts": 0}, "invalid_request", "/maxAttempts"),
        ({"maxAttempts": 1.5}, "invalid_request", "/maxAttempts"),
        ({"metadata": []}, "invalid_request", "/metadata"),
        ({"metadata": {"a": "x" * 100}}, "invalid_request", "/metadata"),
        ({"onComplete": "push"}, "invalid_request", "/onComplete"),
        ({"callbackUrl": 5}, "invalid_request", "/callbackUrl"),
        ({"callback": {}}, "invalid_request", "/callback"),
        (
            {**URL, "callback": {"signature": "v2"}},
            "invalid_request",
            "/callback/signature",
        ),
        ({**URL, "callback": {"payload": "xml"}}, "invalid_request", "/callback/payload"),
        ({**URL, "callback": {"events": []}}, "invalid_request", "/callback/events"),
        ({**URL, "callback": {"events": ["job.lost"]}}, "invalid_request", "/callback/events/0"),
        (
            {**URL, "callback": {"events": ["job.failed", "job.failed"]}},
            "invalid_request",
            "/callback/events",
        ),
        ({**URL, "callback": {"headers": {"a/b": 1}}}, "invalid_request", "/callback/headers/a~1b"),
        ({"queue": "fast"}, "unknown_member", "/queue"),
        ({"callback_url": "https://h.example/"}, "unknown_member", "/callback_url"),
        ({"queueTimeoutSeconds": 0}, "invalid_request", "/queueTimeoutSeconds"),
        ({"queueTimeoutSeconds": 86_401}, "invalid_request", "/queueTimeoutSeconds"),
        ({"queueTimeoutSeconds": "5"}, "invalid_request", "/queueTimeoutSeconds"),
        ({"a/b~c": 1}, "unknown_member", "/a~1b~0c"),
        ({**URL, "callback": {"url": "https://h.example/"}}, "unknown_member", "/callback/url"),
    ],
)
def test_faults(members: dict[str, object], code: str, where: str) -> None:
    with pytest.raises(Problem) as caught:
        parse(**members)
    assert caught.value.code == code
    assert [fault.pointer for fault in caught.value.faults] == [where]
    assert caught.value.faults[0].detail


@pytest.mark.parametrize("body", [None, [], "text", 5, True])
def test_a_body_that_is_no_object(body: object) -> None:
    with pytest.raises(Problem) as caught:
        parse_submit(body, metadata_limit=100)
    assert caught.value.code == "invalid_request"
    assert caught.value.faults == (Fault("", "must be an object"),)


def test_every_fault_is_named() -> None:
    with pytest.raises(Problem) as caught:
        parse_submit({"priority": 1}, metadata_limit=100)
    assert {fault.pointer for fault in caught.value.faults} == {"/type", "/input", "/priority"}


def test_what_is_the_same_request() -> None:
    spelt = {"input": {"payload": 1.0}, "type": "demo.echo"}
    assert parse_submit(spelt, metadata_limit=1).canonical() == parse().canonical()
    assert parse(priority="high").canonical() != parse().canonical()


def test_an_endpoint_is_a_url() -> None:
    assert body.parse(EndpointRequest, {"url": "https://h.example/"}).url == "https://h.example/"
    with pytest.raises(Problem, match="unknown_member"):
        body.parse(EndpointRequest, {"url": "https://h.example/", "secret": "mine"})


@given(st.lists(st.text()))
def test_a_pointer_can_be_read_back(steps: list[str]) -> None:
    text = pointer(steps)
    read = [step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:]]
    assert read == steps
