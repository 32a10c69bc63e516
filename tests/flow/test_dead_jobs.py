"""Jobs that failed, by the operators' script: listed, shown, and run again as new ones."""

from __future__ import annotations

import json
from typing import Any

from tests.running import Gateway


def failed_jobs(gateway: Gateway) -> list[dict[str, Any]]:
    """Return what the script lists."""
    listed = gateway.dead_letters("list", "--kind", "job", "--limit", "10000", "--json")
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
    assert (letter["jobType"], letter["reason"], letter["error"]) == (
        "demo.echo",
        "handler_error",
        reason,
    )
    assert letter["diedAt"].endswith("Z")

    listed = gateway.dead_letters("list", "--kind", "job", "--limit", "10000")
    [line] = [line for line in listed.stdout.splitlines() if line.startswith(old_id)]
    assert "handler_error" in line
    shown = gateway.dead_letters("show", old_id)
    assert shown.returncode == 0, shown.stderr
    assert "No more paper." in shown.stdout
    assert "\x1b" not in line + shown.stdout

    replayed = gateway.dead_letters("replay", "--kind", "job", old_id, "--json")
    assert replayed.returncode == 0, replayed.stderr
    assert json.loads(replayed.stdout)["progress"]["replayed"] == 1
    new_id = gateway.job(old_id)["retriedAs"]
    again = gateway.ended(new_id)
    assert (again["retryOf"], again["metadata"]) == (old_id, {"order": 42})
    assert (again["status"], again["attempt"]) == ("failed", 1)
    assert gateway.client.post(f"/v1/jobs/{old_id}/retry").json()["jobId"] == new_id
    assert {each["jobId"] for each in failed_jobs(gateway)}.isdisjoint({old_id})

    twice = gateway.dead_letters("replay", "--kind", "job", old_id)
    assert twice.returncode == 1
    assert "0 replayed\n" in twice.stdout
    assert "1 left alone: retried" in twice.stderr
    unknown = f"{new_id[:-1]}{'a' if new_id[-1] != 'a' else 'b'}"
    partly = gateway.dead_letters("replay", "--kind", "job", new_id, unknown)
    assert partly.returncode == 3
    assert "1 replayed" in partly.stdout
    assert "1 left alone: unknown" in partly.stderr


def test_all_of_them(gateway: Gateway) -> None:
    for number in range(3):
        job = gateway.submit(type="demo.echo", input={"payload": number, "fail": "Again."})
        gateway.ended(job["jobId"])
    before = {each["id"] for each in failed_jobs(gateway)}
    replayed = gateway.dead_letters("replay", "--kind", "job", "--all", "--json")
    assert replayed.returncode == 0, replayed.stderr
    assert json.loads(replayed.stdout)["progress"]["replayed"] == len(before)
    for old_id in before:
        gateway.ended(gateway.job(old_id)["retriedAs"])


def test_wrong_usage(gateway: Gateway) -> None:
    for arguments in (
        ("show", "x"),
        ("show", "ep_00" + "0" * 22),
        ("replay",),
        ("replay", "--kind", "job", "x"),
        ("replay", "--kind", "job", "msg_00" + "0" * 22),
        ("replay", "--kind", "neither", "--all"),
        ("replay", "--all", "--reason", "gone"),
        ("replay", "--all", "--rate", "0"),
        ("replay", "--all", "--stop-at-failure-rate", "2"),
        ("purge", "--all"),
        ("resume", "job_00" + "0" * 22),
    ):
        said = gateway.dead_letters(*arguments)
        assert said.returncode == 2, said.stdout
    missing = gateway.dead_letters("show", "job_00" + "0" * 22)
    assert (missing.returncode, missing.stdout) == (1, "")
