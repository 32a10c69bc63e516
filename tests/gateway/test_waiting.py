"""Answers that are held back until a job ends or changes, by a real server."""

from __future__ import annotations

import asyncio

import pytest

from config.store import Store
from tests.gateway.jobs import ECHO
from tests.gateway.served import Served, made_key, revoke, until


async def test_a_submission_may_wait_for_its_end(served: Served, store: Store) -> None:
    waiting = asyncio.create_task(
        served.client.post("/v1/jobs", json=ECHO, headers={"Prefer": "respond-async, wait=30"})
    )

    async def is_kept() -> bool:
        return bool(await store.client.keys("gw:{p*}:j:*"))

    await until(is_kept)
    [key] = await store.client.keys("gw:{p*}:j:*")
    assert isinstance(key, bytes)
    job_id = key.decode().rpartition(":")[2]
    await served.finish(job_id)
    answer = await waiting
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=30"
    assert "retry-after" not in answer.headers
    assert answer.json()["results"] == {"payload": 1}
    await served.was_read(job_id)


@pytest.mark.parametrize(("prefer", "applied"), [("wait=1", "wait=1"), ("wait=0", "wait=0")])
async def test_a_submission_waits_no_longer_than_it_is_told(
    served: Served, prefer: str, applied: str
) -> None:
    answer = await served.client.post("/v1/jobs", json=ECHO, headers={"Prefer": prefer})
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == applied
    assert answer.headers["retry-after"]


async def test_a_poll_waits_for_the_end(served: Served) -> None:
    job_id = await served.submit()
    path = f"/v1/jobs/{job_id}"
    waiting = asyncio.create_task(served.client.get(path, headers={"Prefer": "wait=99"}))
    await served.claim(job_id)
    await served.report(job_id, 10)
    await served.finish(job_id)
    answer = await waiting
    assert answer.status_code == 303
    assert answer.headers["preference-applied"] == "wait=30"
    assert answer.json()["status"] == "completed"


async def test_a_held_back_answer_is_none_for_a_revoked_key(served: Served) -> None:
    job_id = await served.submit()
    key_id, headers = await made_key(served, "read")
    waiting = asyncio.create_task(
        served.client.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=30", **headers})
    )
    await revoke(served, key_id, headers)
    await served.finish(job_id)
    assert (await waiting).status_code == 401


async def test_a_poll_that_knows_a_version_waits_for_another(served: Served) -> None:
    job_id = await served.submit()
    path = f"/v1/jobs/{job_id}"
    etag = (await served.client.get(path)).headers["etag"]
    known = {"Prefer": "wait=30", "If-None-Match": etag}
    waiting = asyncio.create_task(served.client.get(path, headers=known))
    await served.claim(job_id)
    answer = await waiting
    assert (answer.status_code, answer.json()["status"]) == (200, "processing")
    assert answer.headers["etag"] != etag
    at_once = await served.client.get(path, headers=known)
    assert at_once.headers["etag"] == answer.headers["etag"]
    unchanged = await served.client.get(
        path, headers={"Prefer": "wait=1", "If-None-Match": answer.headers["etag"]}
    )
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert unchanged.headers["preference-applied"] == "wait=1"


async def test_a_poll_that_waits_in_vain_tells_how_the_job_stands(served: Served) -> None:
    job_id = await served.submit()
    await served.claim(job_id)
    waiting = asyncio.create_task(
        served.client.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=1"})
    )
    await served.report(job_id, 30)
    answer = await waiting
    assert (answer.status_code, answer.json()["progress"]) == (200, 30)
    assert answer.headers["retry-after"]


async def test_head_never_waits(served: Served) -> None:
    job_id = await served.submit()
    answer = await served.client.head(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=30"})
    assert answer.status_code == 200
    assert "preference-applied" not in answer.headers
