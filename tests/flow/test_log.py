"""Whose request and whose job a line of the log is about, whoever wrote it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.flow.conftest import FAST
from tests.processes import eventually
from tests.running import Gateway, running

TYPES = {"GATEWAY_JOBS_MODULES": '["tests.flow.telling_types"]'}


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose handlers write to the log."""
    with running(tmp_path_factory.mktemp("log") / "data", FAST | TYPES) as started:
        yield started


def lines(gateway: Gateway, role: str) -> list[dict[str, Any]]:
    """Return what the process of `role` has written so far."""
    written = (gateway.data / "log" / f"{role}.log").read_bytes().splitlines(keepends=True)
    return [json.loads(each) for each in written if each.endswith(b"\n")]


@pytest.mark.parametrize("where", ["thread", "async", "process"])
def test_what_a_handler_writes_names_its_job(telling: Gateway, where: str) -> None:
    told = f"billed from {where}"
    jobs = [
        telling.submit(type=f"telling.{where}", input={"line": told})["jobId"] for _ in range(3)
    ]
    for job in jobs:
        assert telling.ended(job)["status"] == "completed"

    def found() -> list[str]:
        return [each["job"] for each in lines(telling, "worker") if each["event"] == told]

    assert eventually(lambda: sorted(found()) == sorted(jobs))


def test_what_is_written_of_a_request_names_it(telling: Gateway) -> None:
    job = telling.submit(type="telling.thread", input={"line": "billed"})["jobId"]
    answer = telling.client.post(
        f"/v1/jobs/{job}/cancel", headers={"X-Request-Id": "from-a-client"}
    )
    assert answer.headers["x-request-id"] == "from-a-client"
    key = telling.client.post(
        "/v1/admin/keys",
        json={"tenant": "acme", "scopes": ["read"]},
        headers={"X-Request-Id": "from-an-operator"},
    )
    assert key.status_code == 201, key.text
    assert eventually(
        lambda: "from-an-operator" in {each.get("request") for each in lines(telling, "api")}
    )
