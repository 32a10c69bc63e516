"""Jobs that failed, by the operators' script: listed, shown, and run again as new ones."""

from __future__ import annotations

import json
from typing import Any

from tests.running import Gateway


def failed_jobs(gateway: Gateway) -> list[dict[str, Any]]:
    """Return what the script lists."""
    listed = gateway.dead_letters("list", "--kind", "job", "--limit", "1000", "--json")
    assert listed.returncode == 0, listed.stderr
    return [json.loads(line) for line in listed.stdout.splitlines()]


def test_a_failed_job_is_run_again(gateway: Gateway) -> None:
    reason = "No more paper.\x1b[2J"
    job = gateway.submit(
        type="demo.echo",
        input={"payload": "x" * 40_000, "fail": reason},
        callbackUrl="http://127.0.0.1:9/down",
        metadata={"order": 42},
    )
    old_id = job["jobId"]
    assert gateway.ended(old_id)["status"] == "failed"
    [letter] = [each for each in failed_jobs(gateway) if each["jobId"] == old_id]
    assert (letter["type"], letter["errorCode"], letter["error"]) == (
        "demo.echo",
        "handler_error",
        reason,
    )
    assert letter["failedAt"].endswith("Z")

    listed = gateway.dead_letters("list", "--kind", "job", "--limit", "1000")
    [line] = [line for line in listed.stdout.splitlines() if line.startswith(old_id)]
    assert "handler_error" in line
    shown = gateway.dead_letters("show", "--kind", "job", old_id)
    assert shown.returncode == 0, shown.stderr
    assert "No more paper." in shown.stdout
    assert "\x1b" not in line + shown.stdout
    history = json.loads(gateway.dead_letters("show", "--kind", "job", old_id, "--json").stdout)
    [attempt] = history["history"]
    assert attempt["outcome"] == "raised"
    assert attempt["startedAt"] <= attempt["endedAt"]
    assert attempt["worker"]

    replayed = gateway.dead_letters("replay", "--kind", "job", old_id, "--json")
    assert replayed.returncode == 0, replayed.stderr
    new_id = json.loads(replayed.stdout)["replayed"][old_id]
    again = gateway.ended(new_id)
    assert (again["retryOf"], again["metadata"]) == (old_id, {"order": 42})
    assert (again["status"], again["attempt"]) == ("failed", 1)
    assert gateway.job(old_id)["retriedAs"] == new_id
    assert gateway.client.post(f"/v1/jobs/{old_id}/retry").json()["jobId"] == new_id
    assert {each["jobId"] for each in failed_jobs(gateway)}.isdisjoint({old_id})

    twice = gateway.dead_letters("replay", "--kind", "job", old_id)
    assert (twice.returncode, twice.stdout) == (1, "0 replayed\n")
    assert f"it runs again as {new_id} already" in twice.stderr
    unknown = f"{new_id[:-1]}{'a' if new_id[-1] != 'a' else 'b'}"
    partly = gateway.dead_letters("replay", "--kind", "job", new_id, unknown)
    assert partly.returncode == 3
    assert "1 replayed" in partly.stdout
    assert unknown in partly.stderr


def test_all_of_them(gateway: Gateway) -> None:
    for number in range(3):
        job = gateway.submit(type="demo.echo", input={"payload": number, "fail": "Again."})
        gateway.ended(job["jobId"])
    before = {each["jobId"] for each in failed_jobs(gateway)}
    replayed = gateway.dead_letters("replay", "--kind", "job", "--all", "--json")
    assert replayed.returncode == 0, replayed.stderr
    assert json.loads(replayed.stdout)["replayed"].keys() == before
    for new_id in json.loads(replayed.stdout)["replayed"].values():
        gateway.ended(new_id)


def test_wrong_usage(gateway: Gateway) -> None:
    job = gateway.submit(type="demo.echo", input={"payload": 1})
    for arguments in (
        ("show", job["jobId"]),
        ("show", "--kind", "job", "msg_00" + "0" * 22),
        ("replay", "--kind", "job", "x"),
        ("replay", "--kind", "neither", "--all"),
    ):
        said = gateway.dead_letters(*arguments)
        assert said.returncode == 2, said.stdout
    missing = gateway.dead_letters("show", "--kind", "job", "job_00" + "0" * 22)
    assert (missing.returncode, missing.stdout) == (1, "")
