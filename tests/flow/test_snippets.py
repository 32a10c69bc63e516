"""The source requirement's other client snippets, unchanged, under Node, against a gateway."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from config.settings import environment
from tests.processes import program
from tests.running import API_KEY, Gateway

HARNESS = Path(__file__).parent / "snippets" / "harness.mjs"


@pytest.fixture(scope="module")
def node() -> str:
    """Return the path of Node."""
    return program("node", "the source requirement's clients")


def run(node: str, gateway: Gateway, snippet: str, *arguments: str) -> dict[str, Any]:
    """Run one of the page's snippets to its end; return what came of it."""
    command = [node, "--experimental-websocket", "--no-warnings", str(HARNESS), snippet]
    ended = subprocess.run(
        [*command, str(gateway.client.base_url), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment() | {"CLIENT_API_KEY": API_KEY},
        timeout=30,
    )
    assert ended.returncode == 0, ended.stderr
    outcome: dict[str, Any] = json.loads(ended.stdout)
    return outcome


def cancel(gateway: Gateway, job_id: str) -> None:
    """Cancel a job that no worker may take: it would fetch the page's video."""
    answer = gateway.client.post(f"/v1/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")


def test_submitting_gives_a_job_and_where_to_ask(node: str, gateway: Gateway) -> None:
    with gateway.paused("worker"):
        outcome = run(node, gateway, "submit")
        [answer] = outcome["answers"]
        job = answer["body"]
        cancel(gateway, job["jobId"])
    assert (answer["status"], job["status"], job["type"]) == (202, "pending", "video.transcode")
    assert outcome["exported"] == {"jobId": job["jobId"], "statusUrl": job["statusUrl"]}
    assert job["statusUrl"] == str(gateway.client.base_url.join(f"/v1/jobs/{job['jobId']}"))
    assert gateway.client.get(job["statusUrl"]).json()["jobId"] == job["jobId"]


def test_submitting_with_a_callback_url_owes_a_callback(node: str, gateway: Gateway) -> None:
    with gateway.paused("worker"), gateway.paused("delivery"):
        [answer] = run(node, gateway, "webhook")["answers"]
        job = answer["body"]
        cancel(gateway, job["jobId"])
        # Whatever is owed to a host that is not ours must go before anybody sends it.
        erased = gateway.client.delete(f"/v1/jobs/{job['jobId']}")
    assert (answer["status"], erased.status_code) == (202, 204)
    assert job["callback"] == {
        "url": "https://client.com/webhook/video-complete",
        "status": "pending",
        "attempts": 0,
        "lastStatusCode": None,
        "nextAttemptAt": None,
    }


def test_the_websocket_tells_progress_and_the_end(node: str, gateway: Gateway) -> None:
    payload = {"made": ["720p", "1080p"]}
    job = gateway.submit(type="demo.echo", input={"payload": payload, "seconds": 1.0, "steps": 4})
    outcome = run(node, gateway, "websocket", job["jobId"])
    *progress, end = outcome["logged"]
    assert end == ["Job completed:", {"payload": payload}]
    # Both sides close; whose close is seen first is open.
    assert outcome["closed"]["wasClean"]
    assert outcome["closed"]["code"] in {1000, 1005}
    told = [int(words[0].removeprefix("Progress: ").removesuffix("%")) for words in progress]
    assert told == sorted(told)
    assert set(told) <= {0, 25, 50, 75, 100}
