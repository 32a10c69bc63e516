"""A ledger of jobs that are submitted while everything is killed at random: nothing may be missing.

Every choice comes from a seed; what the machine makes of it in time does not.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from pytest_httpserver import HTTPServer
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed
from werkzeug import Request, Response

from scripts.supervise import QUICK_DEATH_SECONDS, QUICK_DEATHS_ALLOWED
from tests.faults.records import FAULTY
from tests.running import API_KEY, Gateway

SETTINGS = {
    **FAULTY,
    "GATEWAY_STORE_PARTITIONS": "4",
    "GATEWAY_WORKER_PROCESSES": "2",
    "GATEWAY_JOBS_LEASE_SECONDS": "3",
    "GATEWAY_DELIVERY_DNS_TIMEOUT_SECONDS": "1",
    "GATEWAY_DELIVERY_CONNECT_TIMEOUT_SECONDS": "1",
    "GATEWAY_DELIVERY_FIRST_BYTE_TIMEOUT_SECONDS": "1",
    "GATEWAY_DELIVERY_TOTAL_TIMEOUT_SECONDS": "1",
    "GATEWAY_DELIVERY_LEASE_SECONDS": "11",
}
"""Settings under which what a killed process held is missed soon."""

ROLES = ("worker", "relay", "delivery", "broker", "store", "api")
_CLIENTS = 4
_FAILING = 0.1
_FALTERING = 0.2
_CALLED_BACK = 0.7
_REFUSED = 0.3
_HUNG = 0.1
_HANG_SECONDS = 2.0
_PAUSE = 1.5
_ATTEMPTS = 20
_ASKING, _PAUSE_ASKING = 60.0, 0.1
"""Seconds until a submission is given up, and between two of its requests."""
# One less than the supervisor allows: a process may also fall with another.
_QUICK_KILLS = QUICK_DEATHS_ALLOWED - 2


class Dice:
    """Numbers that are the same for the same seed, whichever thread asks first."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def roll(self, *what: object) -> float:
        """Return the number in [0, 1) that stands for `what`."""
        digest = hashlib.sha256(repr((self._seed, *what)).encode()).digest()
        return float(int.from_bytes(digest[:6], "big")) / 2**48


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One job as it was submitted.

    Attributes:
        job_id: as accepted.
        status: how it must end.
        is_owed: whether its end owes a callback.
    """

    job_id: str
    status: str
    is_owed: bool


@dataclass(slots=True)
class Receivers:
    """Three receivers: one that is well, one that often answers 500, one that at times hangs."""

    dice: Dice
    urls: list[str] = field(default_factory=list)
    heard: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _asked: int = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Answer inside the block."""
        with ExitStack() as stack:
            for kind in ("well", "refusing", "hanging"):
                server = stack.enter_context(HTTPServer(threaded=True))
                answer = self._answerer(kind)
                server.expect_request("/", method="POST").respond_with_handler(answer)
                self.urls.append(server.url_for("/"))
            stack.callback(self.over.set)
            yield

    def _answerer(self, kind: str) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            body = json.loads(request.get_data())
            identifier = request.headers["webhook-id"]
            with self._lock:
                self._asked += 1
                number = self._asked
                told = self.heard.setdefault(body["data"]["jobId"], set())
                told.add((identifier, body["type"]))
            roll = self.dice.roll("answer", number)
            if kind == "refusing" and roll < _REFUSED:
                return Response(status=500)
            if kind == "hanging" and roll < _HUNG:
                self.over.wait(_HANG_SECONDS)
                return Response(status=200)
            with self._lock:
                self.taken.add(identifier)
            return Response(status=200)

        return answer


class Ledger:
    """Submits jobs, kills what runs them, and keeps account."""

    def __init__(self, gateway: Gateway, seed: int, record: str) -> None:
        self._gateway = gateway
        self._dice = Dice(seed)
        self._record = record
        self.receivers = Receivers(self._dice)
        self._permits = threading.Semaphore(0)
        self.entries: list[Entry] = []
        self.kills: list[str] = []
        self._started = dict.fromkeys(ROLES, time.monotonic())
        self._quick = dict.fromkeys(ROLES, 0)

    def run(self, jobs: int, kills: int) -> None:
        """Submit `jobs` jobs from several clients, some before each of `kills` kills."""
        with ThreadPoolExecutor(_CLIENTS) as clients:
            shares = [range(first, jobs, _CLIENTS) for first in range(_CLIENTS)]
            submitting = [clients.submit(self._submit_all, share) for share in shares]
            try:
                for kill in range(kills):
                    self._permits.release(max(1, jobs // (kills + 1)))
                    self._kill(kill)
            finally:
                # The clients are waited for, whatever becomes of the kills.
                self._permits.release(jobs)
            self.entries = [entry for share in submitting for entry in share.result()]

    def _submit_all(self, numbers: range) -> list[Entry]:
        url = self._gateway.record()["apiUrl"]
        headers = {"Authorization": f"Bearer {API_KEY}"}
        with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
            return [self._submit(client, number) for number in numbers if self._permits.acquire()]

    def _submit(self, client: httpx.Client, number: int) -> Entry:
        kind = self._dice.roll("kind", number)
        members: dict[str, Any] = {"maxAttempts": _ATTEMPTS}
        if kind < _FALTERING:
            given = {"record": self._record, "failures": 2, "seconds": 0.05, "payload": number}
            members |= {"type": "faulty.count", "input": given}
        else:
            given = {"payload": number, "seconds": self._dice.roll("seconds", number), "steps": 5}
            members |= {"type": "demo.echo", "input": given}
        status = "completed"
        if kind > 1 - _FAILING:
            members["input"]["fail"] = "As planned."
            status = "failed"
        roll = self._dice.roll("callback", number)
        is_owed = roll < _CALLED_BACK
        if is_owed:
            urls = self.receivers.urls
            members["callbackUrl"] = urls[int(roll / _CALLED_BACK * len(urls))]
        job_id = _accepted(client, members, key=f"{self._record}-{number}")
        return Entry(job_id=job_id, status=status, is_owed=is_owed)

    def _kill(self, number: int) -> None:
        # The pause is part of the fault: some kills come together, some alone.
        time.sleep(_PAUSE * self._dice.roll("pause", number))
        now = time.monotonic()
        settled = {role for role in ROLES if now - self._started[role] > QUICK_DEATH_SECONDS}
        able = [role for role in ROLES if role in settled or self._quick[role] < _QUICK_KILLS]
        if not able:
            return
        role = able[int(self._dice.roll("role", number) * len(able))]
        self._quick[role] = 0 if role in settled else self._quick[role] + 1
        self._gateway.kill(role)
        self._started[role] = time.monotonic()
        self.kills.append(role)

    def settle(self, patience: float) -> list[dict[str, Any]]:
        """Return every job's document once all of them have ended and called back.

        Raises:
            AssertionError: one of them did not.
        """
        deadline = time.monotonic() + patience
        return [self._settled(entry, deadline) for entry in self.entries]

    def _settled(self, entry: Entry, deadline: float) -> dict[str, Any]:
        while True:
            response = self._gateway.client.get(
                f"/v1/jobs/{entry.job_id}", params={"onComplete": "inline"}
            )
            seen: dict[str, Any] = response.json()
            if response.status_code == 200 and _is_over(seen, is_owed=entry.is_owed):
                return seen
            assert time.monotonic() < deadline, f"still {response.status_code} {seen}"
            time.sleep(0.1)

    def faults(self, documents: list[dict[str, Any]]) -> list[str]:
        """Return a sentence for everything that is missing, doubled or wrong."""
        found: list[str] = []
        for entry, document in zip(self.entries, documents, strict=True):
            found += self._faults_of(entry, document)
        for status, kept in self._counts().items():
            wanted = sum(document["status"] == status for document in documents)
            if kept != wanted:
                found.append(f"the store counts {kept} {status}, not {wanted}")
        if len({entry.job_id for entry in self.entries}) != len(self.entries):
            found.append("two submissions were given the same job")
        return found

    def _faults_of(self, entry: Entry, document: dict[str, Any]) -> Iterator[str]:
        job, status = entry.job_id, document["status"]
        if status != entry.status:
            yield f"{job} is {status}, not {entry.status}: {document['errorCode']}"
        told = self.receivers.heard.get(job, set())
        if not entry.is_owed:
            if told:
                yield f"{job} owed no callback"
            return
        if len(told) > 1:
            yield f"{job} was told of in {len(told)} ways: {told}"
        if {event for _, event in told} - {f"job.{status}"}:
            yield f"{job} is {status}, its receiver heard {told}"
        is_delivered = document["callback"]["status"] == "delivered"
        if is_delivered and not {identifier for identifier, _ in told} <= self.receivers.taken:
            yield f"{job} counts as delivered, its receiver took nothing"
        if is_delivered and not told:
            yield f"{job} counts as delivered, its receiver heard nothing"

    def _counts(self) -> dict[str, int]:
        counts = dict.fromkeys(("pending", "processing", "completed", "failed", "cancelled"), 0)
        with self._gateway.connection("store") as store:
            for partition in range(int(SETTINGS["GATEWAY_STORE_PARTITIONS"])):
                kept: Any = store.hgetall(f"gw:{{p{partition:02d}}}:counts")
                for status, number in kept.items():
                    counts[status.decode()] += int(number)
        return counts


def _accepted(client: httpx.Client, members: dict[str, Any], *, key: str) -> str:
    """Submit as a client should that wants one job: under one key until there is a 202."""
    asking = Retrying(
        retry=retry_if_exception_type((httpx.TransportError, _NotYet)),
        wait=wait_fixed(_PAUSE_ASKING),
        stop=stop_after_delay(_ASKING),
        reraise=True,
    )
    return asking(_ask, client, members, key)


class _NotYet(Exception):
    """The gateway wants to be asked again."""


def _ask(client: httpx.Client, members: dict[str, Any], key: str) -> str:
    answer = client.post("/v1/jobs", json=members, headers={"Idempotency-Key": key})
    if answer.status_code in {409, 503}:
        raise _NotYet(answer.text)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["jobId"])


def _is_over(document: dict[str, Any], *, is_owed: bool) -> bool:
    if document["status"] not in {"completed", "failed", "cancelled"}:
        return False
    return not is_owed or document["callback"]["status"] in {"delivered", "dead"}
