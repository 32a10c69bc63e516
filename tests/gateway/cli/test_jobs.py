"""Jobs and their callbacks by the command line, against a running gateway."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from tests.gateway.cli.conftest import Cli
from tests.processes import eventually
from tests.running import API_KEY, Gateway, inbox

ABSENT = "job_00" + "0" * 22


def submitted(cli: Cli, *options: str, **given: Any) -> str:
    """Submit a `demo.echo`; return its identifier."""
    return cli("jobs", "submit", "demo.echo", json.dumps({"payload": 1, **given}), *options).strip()


def document(cli: Cli, job_id: str) -> dict[str, Any]:
    """Return how a job stands."""
    shown: dict[str, Any] = json.loads(cli("jobs", "get", job_id, "--json"))
    return shown


def test_a_job_from_its_submission_to_its_results(asking: Cli) -> None:
    job_id = submitted(asking, "--metadata", '{"order": "A-1042"}', "--priority", "high")
    assert f"`gateway jobs watch {job_id}`" in asking.err
    assert json.loads(asking("jobs", "wait", job_id)) == {"payload": 1}
    assert f"{job_id} completed" in asking.err
    assert json.loads(asking("jobs", "wait", job_id, "--json"))["status"] == "completed"
    shown = document(asking, job_id)
    assert (shown["metadata"], shown["priority"]) == ({"order": "A-1042"}, "high")
    said = asking("jobs", "get", job_id)
    assert "status             completed" in said
    assert '"payload": 1' in said


def test_options_reach_the_gateway(asking: Cli, httpserver: HTTPServer, tmp_path: Path) -> None:
    receiver = inbox(httpserver, "/hook")
    (tmp_path / "input.json").write_text('{"payload": "kept"}')
    options = [
        *("--callback", receiver.url),
        *("--event", "job.failed"),
        *("--run-at", "2100-01-31T12:00:00+01:00"),
        *("--timeout", "7"),
        *("--queue-timeout", "8"),
        *("--result-ttl", "90"),
        *("--max-attempts", "2"),
        *("--idempotency-key", "order-1"),
    ]
    asked = ["jobs", "submit", "demo.echo", f"@{tmp_path}/input.json", *options]
    first, again = asking(*asked), asking(*asked)
    assert first == again
    shown = document(asking, first.strip())
    assert shown["runAt"] == "2100-01-31T11:00:00.000Z"
    assert (shown["maxAttempts"], shown["callback"]["url"]) == (2, receiver.url)
    asking("jobs", "cancel", first.strip())
    assert not receiver.received


def test_a_file_is_uploaded(asking: Cli, tmp_path: Path) -> None:
    place = tmp_path / "paper.txt"
    place.write_text("The river runs free again.")
    given = '{"document": {"part": "paper"}}'
    asked = ["jobs", "submit", "document.analyze", given, "--file"]
    assert json.loads(asking(*asked, f"paper={place}", "--wait"))["words"] == 5
    asking(*asked, "paper", code=2)
    assert "NAME=PATH" in asking.err
    asking(*asked, "paper=/nowhere", code=1)
    assert "/nowhere: No such file" in asking.err


def test_an_input_from_standard_input(asking: Cli) -> None:
    ran = asking.process("jobs", "submit", "demo.echo", "-", "--wait", stdin='{"payload": "ü"}')
    assert (ran.returncode, json.loads(ran.stdout)) == (0, {"payload": "ü"})


def test_a_job_that_fails(asking: Cli) -> None:
    job_id = submitted(asking, "--max-attempts", "1", fail="No more \x1b[2Jpaper.")
    assert asking("jobs", "wait", job_id, code=1) == ""
    assert "failed: No more \\x1b[2Jpaper. (handler_error)" in asking.err
    assert json.loads(asking("jobs", "wait", job_id, "--json", code=1))["status"] == "failed"
    asking("jobs", "get", job_id)
    new_id = asking("jobs", "retry", job_id).split()[-1]
    assert document(asking, new_id)["retryOf"] == job_id
    asking("jobs", "watch", new_id, code=1)
    assert "No more" in asking.err


def test_waiting_is_given_up(asking: Cli) -> None:
    job_id = submitted(asking, seconds=60)
    asking("jobs", "wait", job_id, "--timeout", "1", code=1)
    [line] = asking.err.splitlines()
    assert line.startswith(f"gateway jobs wait: the job {job_id} is ")
    asking("jobs", "cancel", job_id)
    assert asking("jobs", "wait", job_id, code=1) == ""
    assert f"{job_id} was cancelled" in asking.err


def test_some_can_be_cancelled_and_some_not(asking: Cli) -> None:
    waiting = [submitted(asking, "--run-at", "2100-01-01T00:00:00Z") for _ in range(2)]
    said = asking("jobs", "cancel", *waiting, ABSENT, code=3)
    assert said.splitlines() == [f"{each} was cancelled" for each in waiting]
    assert asking.err.startswith(f"{ABSENT}: 404 not_found")
    asking("jobs", "cancel", ABSENT, code=1)
    retried = asking("jobs", "retry", waiting[0], "--json")
    assert json.loads(retried)["retryOf"] == waiting[0]


def test_jobs_are_listed_through_pages(asking: Cli) -> None:
    made = [submitted(asking, "--run-at", "2100-01-01T00:00:00Z") for _ in range(3)]
    filters = ["--status", "pending", "--type", "demo.echo", "--since", "1h"]
    lines = asking("jobs", "list", *filters, "--limit", "2").splitlines()
    assert lines[0].split() == ["JOB", "TYPE", "STATUS", "DONE", "CREATED", "SAYS"]
    assert [line.split()[0] for line in lines[1:]] == made[:0:-1]
    assert "The newest 2 are shown" in asking.err
    listed = [json.loads(line) for line in asking("jobs", "list", *filters, "--json").splitlines()]
    assert [each["jobId"] for each in listed][:3] == made[::-1]
    assert asking("jobs", "list", "--until", "2001-01-01T00:00:00Z") == ""
    assert "No jobs." in asking.err
    asking("jobs", "cancel", *made)


def test_callbacks_are_seen_and_sent_again(
    asking: Cli, whole: Gateway, httpserver: HTTPServer
) -> None:
    receiver = inbox(httpserver, "/seen")
    job_id = submitted(asking, "--callback", receiver.url)
    whole.called_back(job_id)
    heading, line = asking("deliveries", "list", job_id).splitlines()
    assert heading.split() == ["DELIVERY", "EVENT", "STATE", "WHY", "TRIES", "LAST", "NEXT"]
    delivery_id = line.split()[0]
    assert line.split()[1:] == ["job.completed", "delivered", "-", "1", "200", "-"]
    said = asking("deliveries", "show", delivery_id)
    assert f"url                {receiver.url}" in said
    assert "schedule  delivered  200" in said
    shown = json.loads(asking("deliveries", "show", delivery_id, "--json"))
    assert shown["jobId"] == job_id
    absent = "msg_00" + "0" * 22
    asking("deliveries", "redeliver", delivery_id, absent, code=3)
    assert "404 not_found" in asking.err
    assert eventually(lambda: len(receiver.received) == 2)
    headers = [each["webhook-id"] for each, _ in receiver.received]
    assert headers == [delivery_id, delivery_id]
    asking("deliveries", "list", submitted(asking))
    assert "owes none" in asking.err


def test_errors_name_the_step(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("jobs", "list", "--data-dir", str(tmp_path), code=1)
    assert cli.err.startswith(f"gateway jobs list: no gateway runs in {tmp_path}")
    with socket.create_server(("127.0.0.1", 0)) as held:
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
    monkeypatch.setenv("GATEWAY_API_URL", url)
    cli("jobs", "list", code=1)
    assert "GATEWAY_API_KEY" in cli.err
    monkeypatch.setenv("GATEWAY_API_KEY", "some")
    cli("jobs", "list", code=1)
    [line] = cli.err.splitlines()
    assert line.startswith(f"gateway jobs list: {url} gives no answer: ")
    monkeypatch.setenv("GATEWAY_API_URL", "gateway.example")
    cli("jobs", "list", code=1)
    assert "GATEWAY_API_URL: this is no base URL" in cli.err


def test_a_key_that_is_refused(asking: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_API_KEY", "gwk_not-one")
    asking("jobs", "list", code=1)
    assert "gateway jobs list: 401 " in asking.err


def test_the_gateway_of_a_data_directory(
    cli: Cli, whole: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = json.dumps(whole.record())
    (tmp_path / "run.json").write_text(record)
    cli("jobs", "list", "--data-dir", str(tmp_path), code=1)
    assert f"there is no key in {tmp_path}" in cli.err
    (tmp_path / "api.key").write_text(f"{API_KEY}\n")
    cli("jobs", "list", "--data-dir", str(tmp_path))
    (tmp_path / "run.json").write_text("{}")
    cli("jobs", "list", "--data-dir", str(tmp_path), code=1)
    monkeypatch.setenv("GATEWAY_API_URL", whole.record()["apiUrl"])
    cli("jobs", "list", "--data-dir", str(tmp_path), code=1)
    assert "GATEWAY_API_KEY" in cli.err
