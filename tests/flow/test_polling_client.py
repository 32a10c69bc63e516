"""The source requirement's polling clients, unchanged, under Node against a running gateway."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from config.settings import environment
from tests.processes import program
from tests.running import API_KEY, Gateway

HARNESS = Path(__file__).parent / "polling_client" / "harness.mjs"


@pytest.fixture(scope="module")
def node() -> str:
    """Return the path of Node."""
    return program("node", "the source requirement's clients")


def poll(
    node: str, gateway: Gateway, client: str, status_url: str, *arguments: object
) -> dict[str, Any]:
    """Run one of the page's clients; return what it `returned` or has `thrown`, and how it `slept`.

    It has to end by itself, too: a connection that it cannot let go of would keep Node running.
    """
    command = [node, str(HARNESS), client, str(gateway.client.base_url), status_url]
    ended = subprocess.run(
        [*command, *map(json.dumps, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment() | {"CLIENT_API_KEY": API_KEY},
        timeout=20,
    )
    assert ended.returncode == 0, ended.stderr
    outcome: dict[str, Any] = json.loads(ended.stdout)
    return outcome


@pytest.mark.parametrize("payload", [{"a": [1, None]}, "x" * 40_000], ids=["small", "large"])
def test_waiting_returns_the_results(node: str, gateway: Gateway, payload: object) -> None:
    job = gateway.submit(type="demo.echo", input={"payload": payload, "seconds": 0.5})
    outcome = poll(node, gateway, "waitForCompletion", job["statusUrl"])
    assert outcome["returned"] == {"payload": payload}
    assert set(outcome["slept"]) == {2000}


def test_waiting_throws_the_error(node: str, gateway: Gateway) -> None:
    job = gateway.submit(
        type="demo.echo", input={"payload": 1, "seconds": 0.5, "fail": "No more paper."}
    )
    outcome = poll(node, gateway, "waitForCompletion", job["statusUrl"])
    assert outcome["thrown"] == "No more paper."
    assert set(outcome["slept"]) == {2000}


def test_backing_off_returns_the_document(node: str, gateway: Gateway) -> None:
    job = gateway.submit(type="demo.echo", input={"payload": "kept", "seconds": 0.5})
    outcome = poll(node, gateway, "pollWithBackoff", job["statusUrl"])
    document = outcome["returned"]
    assert (document["jobId"], document["status"]) == (job["jobId"], "completed")
    assert document["results"] == {"payload": "kept"}
    assert outcome["slept"][:2] == [1000, 1500]


def test_backing_off_returns_a_failed_job_too(node: str, gateway: Gateway) -> None:
    job = gateway.submit(type="demo.echo", input={"payload": 1, "fail": "No more paper."})
    gateway.ended(job["jobId"])
    outcome = poll(node, gateway, "pollWithBackoff", job["statusUrl"])
    document = outcome["returned"]
    assert (document["status"], document["error"]) == ("failed", "No more paper.")
    assert (document["results"], outcome["slept"]) == (None, [])


def test_backing_off_gives_up_on_a_job_that_goes_on(node: str, gateway: Gateway) -> None:
    job = gateway.submit(type="demo.echo", input={"payload": 1, "seconds": 3})
    outcome = poll(node, gateway, "pollWithBackoff", job["statusUrl"], 2)
    assert outcome["thrown"] == "Polling timeout"
    assert outcome["slept"] == [1000, 1500]
    assert gateway.ended(job["jobId"])["status"] == "completed"


def test_a_status_url_without_its_origin_is_polled_as_well(node: str, gateway: Gateway) -> None:
    job = gateway.submit(type="demo.echo", input={"payload": 1})
    outcome = poll(node, gateway, "waitForCompletion", f"/v1/jobs/{job['jobId']}")
    assert outcome["returned"] == {"payload": 1}
