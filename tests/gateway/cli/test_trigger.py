"""A sample callback to a real receiver, and what is made of its answer."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import get_args

import click
import pytest
from pytest_httpserver import HTTPServer

from delivery.signing import generate_secret
from gateway.cli.trigger import trigger
from gateway.receiving import verify, verify_x_signature
from gateway.schemas.jobs import Event
from tests.gateway.cli.conftest import Cli
from tests.running import Inbox, inbox


@pytest.fixture
def receiver(httpserver: HTTPServer) -> Inbox:
    """A receiver that keeps what it gets."""
    return inbox(httpserver, "/hook")


def test_a_fresh_secret_is_said_and_verifies(cli: Cli, receiver: Inbox) -> None:
    said = cli("trigger", receiver.url)
    [secret] = [line.split()[1] for line in said.splitlines() if line.startswith("secret: ")]
    [(headers, body)] = receiver.received
    event = verify(body, headers, secret)
    assert event.type == "job.completed"
    assert event.data["status"] == "completed"
    assert headers["gateway-trigger"] == "test"
    assert headers["content-type"] == "application/json"
    assert "200 delivered after " in said


def test_a_given_secret_is_not_said(cli: Cli, receiver: Inbox, tmp_path: Path) -> None:
    secret = generate_secret()
    kept, sent = tmp_path / "secret", tmp_path / "body"
    kept.write_text(secret)
    sent.write_bytes(b'{"type": "mine"}')
    asked = ["trigger", receiver.url, "--secret", f"@{kept}"]
    said = cli(*asked, "--body", str(sent)) + cli(*asked, "--event", "job.failed", "--json")
    assert secret not in said
    (_, own), (headers, failed) = receiver.received
    assert own == sent.read_bytes()
    assert verify(failed, headers, secret).type == "job.failed"
    assert json.loads(said.splitlines()[-1])["outcome"] == "delivered"


def test_every_event_there_is() -> None:
    [option] = [each for each in trigger.params if each.name == "event"]
    assert isinstance(option.type, click.Choice)
    assert tuple(option.type.choices) == get_args(Event)


@pytest.mark.parametrize("signature", ["v1", "v1a", "x-signature"])
def test_every_way_to_sign(cli: Cli, receiver: Inbox, signature: str) -> None:
    said = json.loads(cli("trigger", receiver.url, "--signature", signature, "--json"))
    [(headers, body)] = receiver.received
    event = verify(body, headers, said["secrets"][0])
    assert (event.data["status"], event.data["metadata"]) == ("completed", {"sample": True})
    if signature == "x-signature":
        assert verify_x_signature(body, headers, said["secrets"][1]) == event
        assert "data" not in json.loads(body)
    else:
        assert len(said["secrets"]) == 1


@pytest.mark.parametrize(
    ("status", "outcome", "means"),
    [
        (302, "rejected", "only 2xx"),
        (410, "gone", "nothing more"),
        (429, "throttled", "without using up"),
        (500, "rejected", "only 2xx"),
    ],
)
def test_what_an_answer_means(
    cli: Cli, receiver: Inbox, status: int, outcome: str, means: str
) -> None:
    receiver.always = status
    assert means in cli("trigger", receiver.url, code=1)
    said = json.loads(cli("trigger", receiver.url, "--json", code=1))
    assert (said["outcome"], said["statusCode"]) == (outcome, status)


def test_nobody_listens(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    said = cli("trigger", f"http://127.0.0.1:{port}/hook", code=1)
    assert "connect after " in said


@pytest.mark.parametrize("url", ["ftp://a.example/", "http://user@a.example/", "http://10.0.0.1/"])
def test_what_no_gateway_would_call(cli: Cli, url: str) -> None:
    cli("trigger", url, code=1)
    assert cli.err.startswith("gateway trigger: the gateway would refuse this URL")
