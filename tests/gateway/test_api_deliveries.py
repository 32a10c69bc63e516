"""Deliveries over HTTP: how they stand, what came of each attempt, and one more by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args

import httpx
import pytest

from config.clock import SECOND, parse_rfc3339
from config.ids import new_id
from delivery.attempt import name_of
from delivery.models import Bury, Claimed, Deliver, Retry
from delivery.outcomes import (
    Delivered,
    Denied,
    Gone,
    Outcome,
    Rejected,
    Throttled,
    Unreachable,
    UnreachableCode,
)
from gateway.api.deliveries import HINTS, attempt_document, hint_of
from gateway.auth import SCOPES, Scope
from gateway.services import Services
from tests.delivery.packing import pack
from tests.delivery.test_store import claim, over, wanted
from tests.gateway.conftest import PUBLIC_URL, Gateway
from tests.gateway.jobs import assert_problem, submit

CALLBACK = "http://127.0.0.1:9/hook?key=1"


async def owe(client: httpx.AsyncClient) -> tuple[str, str]:
    """Make a job that ended and owes its callback; return it and the delivery."""
    job_id = await submit(
        client, callbackUrl=CALLBACK, callback={"headers": {"x-route": "secret-route"}}
    )
    assert (await client.post(f"/v1/jobs/{job_id}/cancel")).status_code == 200
    [item] = (await client.get(f"/v1/jobs/{job_id}/deliveries")).json()["items"]
    return job_id, item["id"]


async def attempt(
    services: Services,
    delivery_id: str,
    verdict: Deliver | Retry | Bury,
    sequence: int = 1,
    **record: Any,
) -> Claimed:
    """Have one attempt made that ends so; return it."""
    [claimed] = await claim(services.deliveries, wanted(sequence))
    assert claimed.id == delivery_id
    ended = replace(over(claimed, verdict), record=json.dumps(record))
    assert await services.deliveries.record([ended]) == []
    return claimed


async def test_a_callback_that_was_not_tried_yet(client: httpx.AsyncClient) -> None:
    job_id, delivery_id = await owe(client)
    answer = await client.get(f"/v1/deliveries/{delivery_id}")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    found = answer.json()
    assert found == {
        "id": delivery_id,
        "event": "job.cancelled",
        "jobId": job_id,
        "jobType": "demo.echo",
        "endpointId": found["endpointId"],
        "url": "http://127.0.0.1:9/hook?***",
        "headers": {"x-route": "***"},
        "state": "pending",
        "reason": None,
        "createdAt": found["createdAt"],
        "endedAt": None,
        "nextAttemptAt": found["createdAt"],
        "lastStatusCode": None,
        "attemptCount": 0,
        "attempts": [],
        "_links": {
            "self": f"{PUBLIC_URL}/v1/deliveries/{delivery_id}",
            "redeliver": f"{PUBLIC_URL}/v1/deliveries/{delivery_id}/redeliver",
            "endpoint": f"{PUBLIC_URL}/v1/endpoints/{found['endpointId']}",
            "job": f"{PUBLIC_URL}/v1/jobs/{job_id}",
        },
    }
    listed = await client.get(f"/v1/jobs/{job_id}/deliveries")
    assert listed.json() == {"items": [found]}
    job = (await client.get(f"/v1/jobs/{job_id}")).json()
    assert job["_links"]["deliveries"] == f"{PUBLIC_URL}/v1/jobs/{job_id}/deliveries"


async def test_a_job_that_owes_nothing(client: httpx.AsyncClient) -> None:
    job_id = await submit(client)
    assert (await client.get(f"/v1/jobs/{job_id}/deliveries")).json() == {"items": []}


@pytest.mark.parametrize("scopes", [{"read"}, {"read", "operate"}])
async def test_an_attempt_and_who_sees_the_answer_to_it(
    gateway: Gateway, client: httpx.AsyncClient, services: Services, scopes: set[Scope]
) -> None:
    _, delivery_id = await owe(client)
    await attempt(
        services,
        delivery_id,
        Retry(delay=5 * SECOND),
        at="2030-01-31T12:00:00.000Z",
        trigger="schedule",
        outcome="rejected",
        statusCode=401,
        durationMs=250,
        nextInMs=5000,
        answer="no such signature",
        answerTruncated=True,
    )
    async with await gateway.client(scopes=frozenset(scopes)) as reader:
        found = (await reader.get(f"/v1/deliveries/{delivery_id}")).json()
    [told] = found["attempts"]
    answer = {"answer": "no such signature", "answerTruncated": True}
    assert told == {
        "number": 1,
        "at": "2030-01-31T12:00:00.000Z",
        "durationMs": 250,
        "trigger": "schedule",
        "outcome": "rejected",
        "statusCode": 401,
        "nextAttemptAt": "2030-01-31T12:00:05.250Z",
        "hint": hint_of("rejected", 401),
        **(answer if "operate" in scopes else {}),
    }
    assert (found["state"], found["attemptCount"], found["lastStatusCode"]) == ("pending", 1, 200)


OUTCOMES: tuple[Outcome, ...] = (
    Delivered(status=204),
    Throttled(status=503, retry_after=None),
    *(Rejected(status=status) for status in (302, 400, 401, 403, 404, 405, 413, 415, 422, 500)),
    Gone(status=410),
    *(Unreachable(code=code) for code in get_args(UnreachableCode)),
    Denied(),
)


@pytest.mark.parametrize("outcome", OUTCOMES, ids=repr)
def test_every_outcome_is_explained(outcome: Outcome) -> None:
    hint = hint_of(name_of(outcome), getattr(outcome, "status", None))
    assert hint.endswith(".")
    assert len(hint) > 10


def test_hints_are_for_outcomes_that_there_are() -> None:
    aside = {"lost", "interrupted", "unreadable", "internal_error", "challenge_unanswered"}
    assert HINTS.keys() == {name_of(outcome) for outcome in OUTCOMES} | aside
    assert hint_of("of a later release", None) == ""


@pytest.mark.parametrize(
    ("trigger", "following"),
    [("schedule", "2030-01-31T12:00:05.000Z"), ("manual", None)],
)
def test_nothing_follows_from_an_attempt_by_hand(trigger: str, following: str | None) -> None:
    record = {
        "number": 1,
        "at": "2030-01-31T12:00:00.000Z",
        "trigger": trigger,
        "outcome": "rejected",
        "nextInMs": 5000,
    }
    assert attempt_document(record, with_answer=False)["nextAttemptAt"] == following


def test_an_attempt_that_was_lost() -> None:
    told = attempt_document({"number": 3, "outcome": "lost", "claim": "dp:1:1"}, with_answer=False)
    assert (told["number"], told["at"], told["nextAttemptAt"]) == (3, None, None)
    assert "claim" not in told


async def test_redelivering_a_pending_one_moves_it_to_now(
    client: httpx.AsyncClient, services: Services
) -> None:
    _, delivery_id = await owe(client)
    await attempt(services, delivery_id, Retry(delay=3600 * SECOND))
    before = (await client.get(f"/v1/deliveries/{delivery_id}")).json()
    answer = await client.post(f"/v1/deliveries/{delivery_id}/redeliver")
    assert answer.status_code == 202
    found = answer.json()
    assert found["state"] == "pending"
    moved = parse_rfc3339(before["nextAttemptAt"]) - parse_rfc3339(found["nextAttemptAt"])
    assert moved > 3000 * SECOND
    claimed = await attempt(services, delivery_id, Deliver(), sequence=2)
    assert claimed.trigger == "schedule"


@pytest.mark.parametrize(
    ("first", "second", "state", "reason"),
    [
        (Deliver(), Deliver(), "delivered", None),
        (Deliver(), Bury(reason="exhausted"), "delivered", None),
        (Deliver(), Retry(delay=SECOND), "delivered", None),
        (Bury(reason="exhausted"), Deliver(), "delivered", None),
        (Bury(reason="gone"), Retry(delay=SECOND), "dead", "gone"),
    ],
)
async def test_redelivering_one_that_ended_is_one_attempt(
    client: httpx.AsyncClient,
    services: Services,
    first: Deliver | Bury,
    second: Deliver | Retry | Bury,
    state: str,
    reason: str | None,
) -> None:
    job_id, delivery_id = await owe(client)
    await attempt(services, delivery_id, first)
    before = (await client.get(f"/v1/deliveries/{delivery_id}")).json()
    answer = await client.post(f"/v1/deliveries/{delivery_id}/redeliver")
    assert answer.status_code == 202
    waiting = answer.json()
    assert (waiting["state"], waiting["reason"]) == (before["state"], before["reason"])
    assert waiting["nextAttemptAt"] is not None
    claimed = await attempt(services, delivery_id, second, sequence=2)
    assert claimed.trigger == "manual"
    after = (await client.get(f"/v1/deliveries/{delivery_id}")).json()
    assert (after["state"], after["reason"]) == (state, reason)
    assert (after["attemptCount"], after["nextAttemptAt"]) == (2, None)
    job = (await client.get(f"/v1/jobs/{job_id}")).json()
    assert job["callback"]["status"] == state
    assert await claim(services.deliveries, wanted(3)) == []


async def test_one_that_can_be_sent_no_more(client: httpx.AsyncClient, services: Services) -> None:
    job_id, delivery_id = await owe(client)
    await attempt(services, delivery_id, Deliver(), outcome="delivered", answer="thanks")
    path = f"/v1/deliveries/{delivery_id}"
    before = (await client.get(path)).json()
    job = (await client.get(f"/v1/jobs/{job_id}")).json()
    await pack(services.deliveries)

    after = (await client.get(path)).json()
    assert after == {**before, "url": "http://127.0.0.1:9/***", "headers": {}}
    assert (await client.get(f"/v1/jobs/{job_id}/deliveries")).json() == {"items": [after]}
    assert (await client.get(f"/v1/jobs/{job_id}")).json() == job
    [listed] = (await client.get("/v1/jobs")).json()["items"]
    assert listed["callback"] == job["callback"]
    assert job["callback"]["status"] == "delivered"
    assert_problem(await client.post(f"{path}/redeliver"), "redelivery_over")
    assert (await client.get(path)).json() == after

    assert (await client.delete(f"/v1/jobs/{job_id}")).status_code == 204
    assert_problem(await client.get(path), "not_found")
    assert_problem(await client.post(f"{path}/redeliver"), "not_found")


async def test_one_whose_endpoint_was_deleted(
    client: httpx.AsyncClient, services: Services
) -> None:
    _, delivery_id = await owe(client)
    await attempt(services, delivery_id, Deliver())
    path = f"/v1/deliveries/{delivery_id}"
    endpoint_id = (await client.get(path)).json()["endpointId"]
    assert (await client.delete(f"/v1/endpoints/{endpoint_id}")).status_code == 204
    assert_problem(await client.post(f"{path}/redeliver"), "endpoint_deleted")
    await pack(services.deliveries)
    assert (await client.get(path)).json()["url"] is None


async def test_other_tenants(gateway: Gateway, client: httpx.AsyncClient) -> None:
    job_id, delivery_id = await owe(client)
    async with await gateway.client("globex") as other:
        for method, path in (
            ("GET", f"/v1/jobs/{job_id}/deliveries"),
            ("GET", f"/v1/deliveries/{delivery_id}"),
            ("POST", f"/v1/deliveries/{delivery_id}/redeliver"),
        ):
            assert_problem(await other.request(method, path), "not_found")
    found = (await client.get(f"/v1/deliveries/{delivery_id}")).json()
    assert found["attemptCount"] == 0


@pytest.mark.parametrize(
    "delivery_id", ["x", "msg_99" + "0" * 22, "job_00" + "0" * 22, new_id("msg", 0, 0)]
)
async def test_unknown_ones(client: httpx.AsyncClient, delivery_id: str) -> None:
    assert_problem(await client.get(f"/v1/deliveries/{delivery_id}"), "not_found")
    path = f"/v1/deliveries/{delivery_id}/redeliver"
    assert_problem(await client.post(path), "not_found")
    assert_problem(await client.get(f"/v1/jobs/{delivery_id}/deliveries"), "not_found")


async def test_who_may_do_what(gateway: Gateway, client: httpx.AsyncClient) -> None:
    job_id, delivery_id = await owe(client)
    paths = {
        f"/v1/jobs/{job_id}/deliveries": ("GET", "read"),
        f"/v1/deliveries/{delivery_id}": ("GET", "read"),
        f"/v1/deliveries/{delivery_id}/redeliver": ("POST", "operate"),
    }
    for path, (method, scope) in paths.items():
        async with gateway.anyone() as anyone:
            assert_problem(await anyone.request(method, path), "unauthorized")
        async with await gateway.client(scopes=SCOPES - {scope}) as other:
            assert_problem(await other.request(method, path), "insufficient_scope")


async def test_deliveries_of_an_erased_job_are_gone(client: httpx.AsyncClient) -> None:
    job_id, delivery_id = await owe(client)
    await client.post(f"/v1/deliveries/{delivery_id}/redeliver")
    assert (await client.delete(f"/v1/jobs/{job_id}")).status_code == 204
    assert_problem(await client.get(f"/v1/jobs/{job_id}/deliveries"), "job_expired")
    assert_problem(await client.get(f"/v1/deliveries/{delivery_id}"), "not_found")
