"""A drill: 500 callbacks die of a receiver's outage; the runbook's commands put it right.

The commands are those of `scripts/RUNBOOK.md`, typed as they are printed, and have to show what the
page says they show. What is replaced: ports by free ones, and an identifier that ends in `…` by the
last of its kind that was shown.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from pytest_httpserver import HTTPServer
from standardwebhooks import Webhook
from werkzeug import Request, Response

from tests.processes import eventually
from tests.readmes import RUNBOOK, Block, Checkout, Terminals, blocks_of, missing_line
from tests.running import API_KEY, Gateway, Inbox, inbox, running

LETTERS = 500
SETTINGS = {
    "GATEWAY_STORE_PARTITIONS": "4",
    "GATEWAY_DELIVERY_GAPS_SECONDS": "[0, 0.1]",
    "GATEWAY_DELIVERY_JITTER": "0",
}
"""Two attempts instead of ten."""

PRINTED = re.compile(r"\b(?P<prefix>[a-z]+)_…")


@dataclass(slots=True)
class Receiver:
    """Whoever is called back: fails until it is mended, and keeps the callbacks it took."""

    secret: str = ""
    is_mended: bool = False
    refused: Counter[str] = field(default_factory=Counter)
    took: Counter[str] = field(default_factory=Counter)
    triggers: Counter[str] = field(default_factory=Counter)

    def answer(self, request: Request) -> Response:
        Webhook(self.secret).verify(request.get_data(), dict(request.headers))
        delivery_id = request.headers["webhook-id"]
        if not self.is_mended:
            self.refused[delivery_id] += 1
            return Response("Is the database away?", status=500)
        self.took[delivery_id] += 1
        self.triggers[request.headers["gateway-trigger"]] += 1
        return Response(status=200)


@dataclass(slots=True)
class Operator:
    """Whoever is on call: types what the page says, and looks at what it shows."""

    terminals: Terminals
    seen: str = ""

    def type(self, block: Block) -> None:
        ran = replace(block, text=PRINTED.sub(self._last_shown, block.text))
        said = self.terminals.run(ran)
        missing = missing_line(block.shown, said)
        assert missing is None, f"not shown: {missing}\n{ran.text}\n{said}"
        self.seen += said

    def _last_shown(self, printed: re.Match[str]) -> str:
        shown = re.findall(rf"\b{printed['prefix']}_[0-9A-Za-z]{{20,}}", self.seen)
        return str(shown[-1])


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A running gateway that gives callbacks up soon."""
    with running(tmp_path / "data", SETTINGS) as started:
        yield started


@pytest.fixture
def checkout(tmp_path: Path, gateway: Gateway) -> Checkout:
    """The checkout that it is operated from."""
    made = Checkout(tmp_path)
    subprocess.run([str(made.root / "scripts" / "setup")], check=True, env=made.environ)
    (made.root / ".data").symlink_to(gateway.data)
    made.environ = {**made.environ, "GATEWAY_API_KEY": API_KEY}
    return made


@pytest.fixture
def receiver(checkout: Checkout, gateway: Gateway) -> Iterator[Receiver]:
    """The receiver that the page speaks of."""
    place = urlsplit(checkout.origin("9000"))
    assert place.hostname
    assert place.port
    with HTTPServer(host=place.hostname, port=place.port, threaded=True) as server:
        made = Receiver(gateway.secret(server.url_for("/")))
        server.expect_request("/callbacks", method="POST").respond_with_handler(made.answer)
        yield made
        server.check()


@pytest.mark.timeout(300)  # half a minute, on a machine with nothing else to do
def test_an_outage_is_found_understood_and_put_right(
    gateway: Gateway, checkout: Checkout, receiver: Receiver, httpserver: HTTPServer
) -> None:
    dead = fail(gateway, f"{checkout.origin('9000')}/callbacks")
    assert receiver.refused == dict.fromkeys(dead, 2)
    blocks = blocks_of(checkout.markdown(RUNBOOK))
    [tested] = [at for at, block in enumerate(blocks) if "endpoints test" in block.text]
    [replayed] = [at for at, block in enumerate(blocks) if "--wait" in block.text]
    with checkout.terminals() as terminals, ThreadPoolExecutor(1) as beside:
        operator = Operator(terminals)
        for block in blocks[:tested]:
            operator.type(block)
        receiver.is_mended = True
        for block in blocks[tested:replayed]:
            operator.type(block)
        assert receiver.triggers == {"test": 1}, "a dry run sends nothing"
        live = beside.submit(go_on, gateway, inbox(httpserver, "/live"))
        operator.type(blocks[replayed])
        assert live.result(), "none was called back meanwhile"
        for block in blocks[replayed + 1 :]:
            operator.type(block)
    [sample] = receiver.took.keys() - dead
    assert receiver.took == dict.fromkeys((*dead, sample), 1), "each exactly once"
    assert receiver.triggers == {"test": 1, "replay": LETTERS}
    report = json.loads((checkout.root / "replay.json").read_text())
    assert (report["state"], report["progress"]["delivered"]) == ("completed", LETTERS)


def fail(gateway: Gateway, url: str) -> set[str]:
    """Have callbacks die; return the deliveries."""
    wanted = {"type": "demo.echo", "input": {"payload": 1}, "callbackUrl": url}
    jobs = {gateway.submit(**wanted)["jobId"] for _ in range(LETTERS)}
    found: dict[str, str] = {}

    def are_dead() -> bool:
        found.update({each["id"]: each["jobId"] for each in letters(gateway)})
        return len(found) == LETTERS

    assert any(eventually(are_dead) for _ in range(3)), f"{len(found)} of {LETTERS} are dead"
    assert set(found.values()) == jobs
    return set(found)


def letters(gateway: Gateway) -> Iterator[dict[str, Any]]:
    """Yield all dead letters."""
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "100"} | ({"cursor": cursor} if cursor else {})
        page = gateway.client.get("/v1/dead-letters", params=query).raise_for_status().json()
        yield from page["items"]
        cursor = page["nextCursor"]


def go_on(gateway: Gateway, box: Inbox) -> Counter[str]:
    """Have another receiver called back for as long as the replay runs, one job after the other.

    Returns the jobs whose callback came meanwhile, each at its first attempt.
    """
    headers = {"Authorization": f"Bearer {API_KEY}"}
    with httpx.Client(base_url=gateway.client.base_url, headers=headers, timeout=30) as client:
        beside = replace(gateway, client=client)

        def runs() -> bool:
            found = client.get("/v1/replays").raise_for_status().json()["items"]
            return any(each["state"] == "running" and not each["dryRun"] for each in found)

        assert eventually(runs)
        jobs: Counter[str] = Counter()
        while runs():
            wanted = {"type": "demo.echo", "input": {"payload": 2}, "callbackUrl": box.url}
            job_id = beside.submit(**wanted)["jobId"]
            assert beside.called_back(job_id)["callback"]["attempts"] == 1
            jobs[job_id] += 1
    assert Counter(json.loads(body)["data"]["jobId"] for _, body in box.received) == jobs
    return jobs
