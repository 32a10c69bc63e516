"""Endpoints and their secrets by the command line, against a running gateway."""

from __future__ import annotations

import json

import pytest
from pytest_httpserver import HTTPServer

from delivery.signing import generate_secret
from gateway.receiving import verify
from tests.gateway.cli.conftest import Cli
from tests.running import Gateway, Inbox, inbox

ABSENT = "ep_00" + "0" * 22


@pytest.fixture
def receiver(httpserver: HTTPServer) -> Inbox:
    """A receiver that keeps what it gets."""
    return inbox(httpserver, "/endpoints")


@pytest.fixture
def endpoint(asking: Cli, whole: Gateway, receiver: Inbox) -> str:
    """The endpoint of that receiver."""
    made = whole.client.post("/v1/endpoints", json={"url": receiver.url})
    return str(made.json()["id"])


def test_they_are_listed_and_shown(asking: Cli, endpoint: str, receiver: Inbox) -> None:
    origin = receiver.url.removesuffix("/endpoints")
    heading, *lines = asking("endpoints", "list").splitlines()
    columns = ["ENDPOINT", "ORIGIN", "STATE", "LIMIT", "BUSY", "WAITING", "OK"]
    assert heading.split() == columns
    [line] = [line for line in lines if line.startswith(endpoint)]
    assert line.split()[1:3] == [origin, "ok"]
    listed = [json.loads(line) for line in asking("endpoints", "list", "--json").splitlines()]
    assert endpoint in {each["id"] for each in listed}
    assert f"origin             {origin}" in asking("endpoints", "show", endpoint)
    asking("endpoints", "show", ABSENT, code=1)
    assert "404 not_found" in asking.err


def test_one_is_paused_and_resumed(asking: Cli, endpoint: str) -> None:
    assert json.loads(asking("endpoints", "pause", endpoint, "--json"))["paused"]
    [line] = [line for line in asking("endpoints", "list").splitlines() if endpoint in line]
    assert line.split()[2] == "paused"
    assert "paused             no" in asking("endpoints", "resume", endpoint)
    assert not json.loads(asking("endpoints", "show", endpoint, "--json"))["paused"]


def test_urls_are_disabled_and_enabled(asking: Cli, endpoint: str, receiver: Inbox) -> None:
    urls = [f"{receiver.url}/{number}?key=1" for number in range(3)]
    asking("endpoints", "disable", endpoint, urls[0])
    said = json.loads(asking("endpoints", "disable", endpoint, *urls, "--json"))
    assert sorted(each["url"] for each in said["disabledUrls"]) == urls
    assert {each["reason"] for each in said["disabledUrls"]} == {"operator"}
    left = json.loads(asking("endpoints", "enable", endpoint, urls[1], "--json"))
    assert sorted(each["url"] for each in left["disabledUrls"]) == [urls[0], urls[2]]
    asking("endpoints", "enable", endpoint, urls[1], code=1)
    assert f"{urls[1]} is not disabled" in asking.err
    asking("endpoints", "enable", endpoint, code=2)
    asking("endpoints", "enable", endpoint, urls[0], "--all", code=2)
    assert "disabledUrls" not in asking("endpoints", "enable", endpoint, "--all")
    asking("endpoints", "disable", endpoint, "http://127.0.0.1:9/elsewhere", code=1)
    assert "invalid_callback_url" in asking.err


def test_a_sample_is_sent(asking: Cli, endpoint: str, receiver: Inbox) -> None:
    asked = ["endpoints", "test", endpoint, "--url", receiver.url]
    said = asking(*asked, "--event", "job.failed")
    assert "test  delivered  200" in said
    [(headers, body)] = receiver.received
    secret = asking("secrets", "show", endpoint).strip()
    assert verify(body, headers, secret).type == "job.failed"
    receiver.always = 500
    found = json.loads(asking(*asked, "--json", code=1))
    assert (found["state"], found["lastStatusCode"]) == ("dead", 500)
    asking(*asked[:3], "--url", "http://127.0.0.1:9/elsewhere", code=1)
    assert "invalid_callback_url" in asking.err


def test_a_secret_is_changed(asking: Cli, endpoint: str) -> None:
    old = asking("secrets", "show", endpoint).strip()
    new = asking("secrets", "rotate", endpoint).strip()
    assert "An old one signs too until " in asking.err
    assert new not in {old, ""}
    assert asking("secrets", "show", endpoint).strip() == new
    own = generate_secret()
    assert asking("secrets", "rotate", endpoint, "--secret", own, "--overlap", "0").strip() == own
    asking("secrets", "rotate", endpoint)
    asking("secrets", "rotate", endpoint, "--retire")
    assert asking.err == ""
    asking("secrets", "show", endpoint, "--scheme", "v1a", code=1)
    assert "no secret for v1a" in asking.err
    key = asking("secrets", "rotate", endpoint, "--scheme", "v1a").strip()
    assert key.startswith("whpk_")
