"""From submit to callback, through every process, with real receivers."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from standardwebhooks import Webhook, WebhookVerificationError

from tests.processes import eventually
from tests.running import Gateway, inbox

SAMPLE = Path(__file__).parents[2] / "scripts" / "sample" / "river-restoration.pdf"


def test_a_document_is_analysed_and_called_back(gateway: Gateway, httpserver: HTTPServer) -> None:
    box = inbox(httpserver, "/done")
    secret = gateway.secret(box.url)
    job = {
        "type": "document.analyze",
        "input": {"document": {"part": "file"}},
        "callbackUrl": box.url,
        "metadata": {"order": 42},
    }
    response = gateway.client.post(
        "/v1/jobs",
        files=[
            ("job", ("job.json", json.dumps(job), "application/json")),
            ("file", ("report.pdf", SAMPLE.read_bytes(), "application/pdf")),
        ],
    )
    assert response.status_code == 202, response.text
    submitted = response.json()
    assert response.headers["location"] == submitted["statusUrl"]
    document = gateway.called_back(submitted["jobId"])
    assert document["status"] == "completed"
    assert document["results"]["pages"] == 3
    assert document["results"]["language"] == "en"

    [(headers, body)] = box.received
    Webhook(secret).verify(body, headers)
    event = json.loads(body)
    assert event["type"] == "job.completed"
    data = event["data"]
    assert (data["jobId"], data["metadata"]) == (submitted["jobId"], {"order": 42})
    assert "callback" not in data
    assert "estimatedCompletion" not in data
    assert data["completedAt"] == document["completedAt"]
    assert data["updatedAt"] == document["updatedAt"]
    assert headers["webhook-id"].startswith("msg_")
    assert (headers["gateway-attempt"], headers["gateway-trigger"]) == ("1", "schedule")
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body + b" ", headers)

    # The receiver has no API key: what the callback names carries a ticket.
    for artifact in data["results"]["artifacts"]:
        fetched = gateway.client.get(artifact["href"], headers={"Authorization": ""})
        assert fetched.status_code == 200
        assert len(fetched.content) == artifact["size"]


def test_the_status_redirects_to_the_result(gateway: Gateway) -> None:
    job = gateway.submit(type="demo.echo", input={"payload": [1, {"a": None}]})
    gateway.ended(job["jobId"])
    response = gateway.client.get(f"/v1/jobs/{job['jobId']}", follow_redirects=False)
    assert response.status_code == 303
    assert response.json()["results"] == {"payload": [1, {"a": None}]}
    result = gateway.client.get(response.headers["location"], headers={"Authorization": ""})
    assert result.status_code == 200
    assert result.json() == response.json()


def test_a_job_shows_its_progress(gateway: Gateway) -> None:
    job = gateway.submit(type="demo.echo", input={"payload": 1, "seconds": 0.6, "steps": 3})
    seen = gateway.wait(
        lambda: gateway.job(job["jobId"]),
        lambda document: document["status"] == "processing" and document["progress"] > 0,
        20,
    )
    assert 0 < seen["progress"] < 100
    assert seen["estimatedCompletion"] is not None
    assert gateway.ended(job["jobId"])["progress"] == 100


def test_a_failed_job_is_called_back_too(gateway: Gateway, httpserver: HTTPServer) -> None:
    box = inbox(httpserver, "/failed")
    job = gateway.submit(
        type="demo.echo", input={"payload": 1, "fail": "No more paper."}, callbackUrl=box.url
    )
    document = gateway.called_back(job["jobId"])
    assert (document["status"], document["error"]) == ("failed", "No more paper.")
    [(_, body)] = box.received
    event = json.loads(body)
    assert (event["type"], event["data"]["error"]) == ("job.failed", "No more paper.")


def test_a_receiver_that_fails_twice_gets_three_attempts(
    gateway: Gateway, httpserver: HTTPServer
) -> None:
    box = inbox(httpserver, "/flaky", 500, 500)
    secret = gateway.secret(box.url)
    job = gateway.submit(type="demo.echo", input={"payload": "x"}, callbackUrl=box.url)
    document = gateway.called_back(job["jobId"])
    assert document["callback"]["attempts"] == 3
    assert document["callback"]["lastStatusCode"] == 200
    assert len(box.received) == 3
    assert len({headers["webhook-id"] for headers, _ in box.received}) == 1
    assert len({body for _, body in box.received}) == 1
    assert [headers["gateway-attempt"] for headers, _ in box.received] == ["1", "2", "3"]
    for headers, body in box.received:
        Webhook(secret).verify(body, headers)
        sent = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        assert abs((datetime.now(UTC) - sent).total_seconds()) < 300  # noqa: TID251


def test_a_dead_letter_is_replayed_when_the_receiver_is_back(
    gateway: Gateway, httpserver: HTTPServer
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    url = f"http://127.0.0.1:{port}/down"
    job = gateway.submit(type="demo.echo", input={"payload": "kept"}, callbackUrl=url)
    document = gateway.called_back(job["jobId"], "dead")
    assert document["callback"]["attempts"] == 3

    listed = gateway.dead_letters("list", "--json")
    assert listed.returncode == 0, listed.stderr
    letters = [json.loads(line) for line in listed.stdout.splitlines()]
    [letter] = [each for each in letters if each["jobId"] == job["jobId"]]
    assert (letter["reason"], letter["attemptCount"]) == ("exhausted", 3)

    with HTTPServer(host="127.0.0.1", port=port) as back:
        box = inbox(back, "/down")
        replayed = gateway.dead_letters("replay", letter["id"])
        assert replayed.returncode == 0, replayed.stderr
        assert "1 replayed" in replayed.stdout
        gateway.called_back(job["jobId"])
        [(headers, body)] = box.received
    assert headers["webhook-id"] == letter["id"]
    assert (headers["gateway-attempt"], headers["gateway-trigger"]) == ("4", "replay")
    assert json.loads(body)["data"]["results"] == {"payload": "kept"}

    shown = gateway.dead_letters("show", letter["id"], "--json")
    attempts = json.loads(shown.stdout)["attempts"]
    outcomes = [attempt["outcome"] for attempt in attempts]
    assert outcomes == ["connect", "connect", "connect", "delivered"]
    again = gateway.dead_letters("replay", letter["id"])
    assert again.returncode == 1
    assert "0 replayed\n" in again.stdout
    assert "1 left alone: delivered" in again.stderr


def test_a_url_that_wants_no_more_of_what_was_sent_on_to_it_gets_no_more(
    gateway: Gateway, httpserver: HTTPServer
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    # Hosts of several partitions, where there are several.
    urls = [f"http://127.0.0.{host}:{port}/moved" for host in range(2, 10)]
    jobs = [
        gateway.submit(type="demo.echo", input={"payload": url}, callbackUrl=url)["jobId"]
        for url in urls
    ]
    dead = []
    for job in jobs:
        gateway.called_back(job, "dead")
        [delivery] = gateway.client.get(f"/v1/jobs/{job}/deliveries").json()["items"]
        dead.append(delivery["id"])
    box = inbox(httpserver, "/unwanted", always=410)

    def send_on() -> None:
        replay = {"ids": dead, "toUrl": box.url}
        made = gateway.client.post("/v1/replays", json=replay)
        assert made.status_code == 202, made.text
        gateway.wait(
            lambda: gateway.client.get(f"/v1/replays/{made.json()['id']}").json(),
            lambda document: document["progress"]["dead"] == len(dead),
            20,
        )

    def known() -> list[dict[str, str]]:
        listed = gateway.client.get("/v1/endpoints").json()["items"]
        [own] = [each for each in listed if box.url.startswith(f"{each['origin']}/")]
        return [each for each in own["disabledUrls"] if each["url"] == box.url]

    send_on()
    assert eventually(lambda: [each["reason"] for each in known()] == ["gone"])
    shown = gateway.client.get(f"/v1/deliveries/{dead[0]}").json()
    seen = gateway.client.get(shown["_links"]["endpoint"]).json()
    assert box.url in [each["url"] for each in seen["disabledUrls"]]
    assert box.received
    before = len(box.received)
    send_on()
    assert len(box.received) == before


def test_large_results_are_fetched_by_ticket(gateway: Gateway, httpserver: HTTPServer) -> None:
    box = inbox(httpserver, "/large")
    payload = "x" * 40_000
    job = gateway.submit(type="demo.echo", input={"payload": payload}, callbackUrl=box.url)
    document = gateway.called_back(job["jobId"])
    assert document["results"] == {"payload": payload}
    [(_, body)] = box.received
    data = json.loads(body)["data"]
    assert (data["results"], data["resultsOmitted"]) == (None, True)
    fetched = gateway.client.get(data["resultUrl"], headers={"Authorization": ""})
    assert fetched.status_code == 200
    assert fetched.json()["results"] == {"payload": payload}


def test_a_callback_to_a_private_address_is_refused_at_submit(gateway: Gateway) -> None:
    response = gateway.client.post(
        "/v1/jobs",
        json={
            "type": "demo.echo",
            "input": {"payload": 1},
            "callbackUrl": "https://10.0.0.1/hook",
        },
    )
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "invalid_callback_url"


def test_an_idempotency_key_makes_one_job(gateway: Gateway) -> None:
    body = {"type": "demo.echo", "input": {"payload": 1}}
    headers = {"Idempotency-Key": '"order-1"'}
    first = gateway.client.post("/v1/jobs", json=body, headers=headers)
    again = gateway.client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "order-1"})
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json()["jobId"] == first.json()["jobId"]
    assert again.headers["idempotent-replayed"] == "true"
    other = gateway.client.post("/v1/jobs", json=body | {"input": {"payload": 2}}, headers=headers)
    assert other.status_code == 422


def test_an_expired_job_is_gone(gateway: Gateway) -> None:
    job = gateway.submit(type="demo.echo", input={"payload": 1}, resultTtlSeconds=1)
    gateway.ended(job["jobId"])
    url = f"/v1/jobs/{job['jobId']}"
    gone = gateway.wait(
        lambda: {"response": gateway.client.get(url, follow_redirects=False)},
        lambda seen: seen["response"].status_code == 410,
        20,
    )["response"]
    assert gone.json()["jobStatus"] == "completed"
    assert gone.json()["jobId"] == job["jobId"]
    assert gateway.client.get(f"{url}/result").status_code == 410


def test_results_that_nobody_reads_are_announced_before_they_go(
    gateway: Gateway, httpserver: HTTPServer
) -> None:
    box = inbox(httpserver, "/expiring")
    job = gateway.submit(
        type="demo.echo",
        input={"payload": "unread"},
        callbackUrl=box.url,
        callback={"events": ["job.expiring"]},
        resultTtlSeconds=4,
    )
    assert eventually(lambda: bool(box.received))
    event = json.loads(box.received[0][1])
    assert (event["type"], event["data"]["jobId"]) == ("job.expiring", job["jobId"])
    assert event["data"]["results"] == {"payload": "unread"}
