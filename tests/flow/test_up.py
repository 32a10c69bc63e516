"""`scripts/up` from outside: real processes on data directories of their own."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_httpserver import HTTPServer

from config.settings import environment
from config.store import Store
from tests.conftest import RunningStores
from tests.processes import eventually, is_alive
from tests.running import API_KEY, ROOT, Gateway, inbox

QUICK = {"GATEWAY_JOBS_LEASE_SECONDS": "3", "GATEWAY_JOBS_SWEEP_SECONDS": "0.2"}
OWN_STORES = {"store", "broker"}
PROCESSES = {"api", "relay", "worker", "delivery"}


@dataclass(slots=True, kw_only=True)
class Up:
    """One run of `scripts/up`."""

    data: Path
    process: subprocess.Popen[bytes]

    def said(self) -> str:
        """Return its standard output so far."""
        return self.data.with_suffix(".out").read_text("utf-8")

    def complained(self) -> str:
        """Return its standard error so far."""
        return self.data.with_suffix(".err").read_text("utf-8")

    def waits(self) -> None:
        """Return when it is up and waits for its interrupt."""

        def is_up() -> bool:
            assert self.process.poll() is None, self.said() + self.complained()
            return "Ctrl-C stops it." in self.said()

        assert eventually(is_up), self.said() + self.complained()

    def code(self) -> int:
        """Wait for its end; return its exit code."""
        return self.process.wait(60)

    def stop(self, number: signal.Signals) -> None:
        """End it by a signal: in order, with nothing left of it."""
        family = self.family()
        self.process.send_signal(number)
        assert self.code() == 0, self.said() + self.complained()
        assert [pid for pid in family if is_alive(pid)] == []
        assert not (self.data / "run.json").exists()

    def family(self) -> set[int]:
        """Return the processes that descend from it, and itself."""
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
        )
        pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
        family: set[int] = set()
        more = {self.process.pid}
        while more:
            family |= more
            more = {pid for pid, parent in pairs if parent in family} - family
        return family

    def api_key(self) -> str:
        """Return the key that it shows."""
        shown = re.search(r"api key +(\S+)", self.said())
        assert shown is not None, self.said()
        return shown[1]

    def client(self, key: str) -> httpx.Client:
        """Return a client of its api."""
        url = re.search(r"api +(http://\S+)", self.said())
        assert url is not None, self.said()
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=url[1], headers=headers, timeout=30, trust_env=False)


Start = Callable[..., Up]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start runs of `scripts/up` from somewhere else than the checkout."""
    inherited = {
        name: value
        for name, value in environment().items()
        if not name.startswith("GATEWAY_") and name != "PYTHONPATH"
    }
    started: list[Up] = []

    def start(*arguments: str, data: str = "data", port: int = 0, **settings: str) -> Up:
        folder = tmp_path / data
        command = [f"{ROOT}/scripts/up", "--port", str(port), "--data-dir", str(folder)]
        with (
            folder.with_suffix(".out").open("wb") as out,
            folder.with_suffix(".err").open("wb") as err,
        ):
            process = subprocess.Popen(
                [*command, *arguments],
                cwd=tmp_path,
                env=inherited | settings,
                stdout=out,
                stderr=err,
            )
        started.append(Up(data=folder, process=process))
        return started[-1]

    yield start
    for up in started:
        if up.process.poll() is None:
            up.process.terminate()
        up.code()


def admin_ports(**ports: int) -> dict[str, str]:
    """Return the settings of admin ports."""
    return {f"GATEWAY_ADMIN_{role.upper()}_PORT": str(port) for role, port in ports.items()}


def gateway_of(up: Up, client: httpx.Client) -> Gateway:
    """Return the means to look at a run's jobs."""
    return Gateway(data=up.data, process=up.process, client=client)


def test_once_shows_the_main_job_and_what_it_kept_is_there_again(start: Start) -> None:
    up = start("--once")
    assert up.code() == 0, up.said() + up.complained()
    steps = [
        r"✓ POST /v1/jobs +202 Accepted +(?P<job>job_\w+)",
        r"· GET status +200 OK +(pending|processing) +\d+ %",
        r"✓ GET status +303 See Other +/v1/jobs/(?P=job)/result",
        r"✓ GET result +200 OK +3 pages, 1,125 words, language en",
        r"✓ callback +job\.completed +signature verified +msg_\w+",
        r"✓ GET report +200 OK",
    ]
    shown = re.search(r"\n.*".join(f"{step}[^§]*?" for step in steps), up.said())
    assert shown is not None, up.said()
    opened = "callbacks to plain http and to this machine are allowed"
    assert f"policy          {opened}\n" in up.said()
    assert (up.complained(), "\x1b" in up.said(), "✗" in up.said()) == ("", False, False)
    assert (up.data / "demo" / "report.pdf").read_bytes().startswith(b"%PDF-")
    assert not (up.data / "run.json").exists()

    again = start("--no-demo", **QUICK)
    again.waits()
    assert again.api_key() == up.api_key()
    assert "POST /v1/jobs" not in again.said()
    assert opened in again.said()
    with again.client(up.api_key()) as client:
        gateway = gateway_of(again, client)
        assert gateway.job(shown["job"])["results"]["pages"] == 3
        lost = gateway.submit(type="demo.echo", input={"payload": "kept", "seconds": 3})
        gateway.wait(
            partial(gateway.job, lost["jobId"]), lambda seen: seen["status"] == "processing", 20
        )

    family = again.family()
    # Two stores with a guardian each, Dramatiq with its forks and its admin port, three more, `up`.
    assert len(family) >= 10
    again.process.kill()
    assert eventually(lambda: not any(map(is_alive, family)))

    third = start("--no-demo", **QUICK)
    third.waits()
    with third.client(up.api_key()) as client:
        document = gateway_of(third, client).ended(lost["jobId"])
    assert (document["status"], document["results"]) == ("completed", {"payload": "kept"})
    assert document["attempt"] == 2
    third.stop(signal.SIGINT)


def test_processes_that_die_are_started_again(start: Start, httpserver: HTTPServer) -> None:
    up = start("--no-demo", **QUICK, GATEWAY_BOOTSTRAP_API_KEY=API_KEY)
    up.waits()
    assert up.api_key() == API_KEY
    before = pids_of(up)
    assert set(before) == {"up"} | OWN_STORES | PROCESSES

    with up.client(API_KEY) as client:
        os.kill(before["api"], signal.SIGKILL)
        assert eventually(lambda: not is_alive(before["api"]))
        # Nobody serves now; the connections wait in the socket that `up` holds.
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: client.get("/v1/job-types"), range(32)))
        assert {answer.status_code for answer in answers} == {200}

        others = (OWN_STORES | PROCESSES) - {"api"}
        for role in others:
            os.kill(before[role], signal.SIGKILL)
        everybody = OWN_STORES | PROCESSES
        assert eventually(
            lambda: all(pids_of(up).get(r) not in {None, before[r]} for r in everybody)
        )
        for role in everybody:
            report = rf"✗ process +{role} was killed by SIGKILL; starting it again in 0\.2 s\n"
            assert re.search(report, up.said()), up.said()

        gateway = gateway_of(up, client)
        box = inbox(httpserver, "/after")
        job = eventually_submitted(client, box.url)
        assert gateway.called_back(job["jobId"], patience=40)["status"] == "completed"
        assert len(box.received) == 1
    up.stop(signal.SIGTERM)


def pids_of(up: Up) -> dict[str, int]:
    """Return the processes by role that `up` has on record."""
    with httpx.Client() as nobody:
        pids: dict[str, int] = gateway_of(up, nobody).record()["pids"]
    return pids


def eventually_submitted(client: httpx.Client, url: str) -> dict[str, Any]:
    """Submit once the api has its store again; until then it says 503."""
    body = {"type": "demo.echo", "input": {"payload": 1}, "callbackUrl": url}
    answers: list[httpx.Response] = []

    def accepted() -> bool:
        answers.append(client.post("/v1/jobs", json=body))
        assert answers[-1].status_code in {202, 503}, answers[-1].text
        return answers[-1].status_code == 202

    assert eventually(accepted), answers[-1].text
    document: dict[str, Any] = answers[-1].json()
    return document


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (
            {"GATEWAY_JOBS_MODULES": '["gateway.handlers_.echo"]'},
            r"✗ stopped here +POST /v1/jobs answered 422, not 202",
        ),
        (
            {"GATEWAY_DELIVERY_ALLOW_HTTP": "false"},
            r"✗ stopped here +POST /v1/endpoints answered 422, not 201",
        ),
    ],
    ids=["no-such-job-type", "no-plain-http"],
)
def test_once_fails_when_a_step_fails(start: Start, settings: dict[str, str], fault: str) -> None:
    up = start("--once", **settings)
    assert up.code() == 1
    assert re.search(fault, up.said()), up.said()
    assert f"The logs are in {up.data / 'log'}." in up.said()


def test_an_interrupt_during_the_start_leaves_nothing(start: Start) -> None:
    up = start("--no-demo")
    assert eventually((up.data / "run.json").exists)
    up.stop(signal.SIGINT)
    assert "Ctrl-C stops it." not in up.said()
    assert "Stopping" in up.said()


def test_once_does_not_succeed_when_it_is_interrupted(start: Start) -> None:
    up = start("--once")
    assert eventually(lambda: "POST /v1/jobs" in up.said())
    family = up.family()
    up.process.send_signal(signal.SIGTERM)
    assert up.code() == 1
    assert not any(map(is_alive, family))


def test_what_is_in_use_is_refused(start: Start, httpserver: HTTPServer) -> None:
    port = httpserver.port
    up = start("--no-demo", port=port)
    assert up.code() == 1
    hint = "choose another with --port N (0 takes any free one)"
    assert up.complained() == f"up: port {port} is in use; {hint}\n"
    first = start("--no-demo")
    assert eventually((first.data / "run.json").exists)
    out = first.said()
    second = start("--no-demo")
    assert second.code() == 1
    assert second.complained() == f"up: another run is using the data directory {first.data}\n"
    assert first.process.poll() is None, out


def test_admin_ports_are_any_free_ones_unless_they_are_given(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = start("--no-demo", data="refused", **admin_ports(relay=port))
        assert refused.code() == 1
        hint = "choose another with GATEWAY_ADMIN_RELAY_PORT=N"
        assert refused.complained() == f"up: port {port} is in use; {hint}\n"
    up = start("--no-demo", **admin_ports(relay=port, delivery=0))
    up.waits()
    urls = json.loads((up.data / "run.json").read_text())["adminUrls"]
    assert set(urls) == {"api", "relay", "worker"}
    assert urls["relay"] == f"http://127.0.0.1:{port}"
    shown = ", ".join(f"{role} {url.rpartition(':')[2]}" for role, url in urls.items())
    assert f"admin ports     127.0.0.1: {shown}" in up.said()
    for url in urls.values():
        assert eventually(lambda url=url: httpx.get(f"{url}/readyz").status_code == 200)  # type: ignore[misc]
    assert httpx.get(f"{urls['relay']}/metrics").status_code == 200


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--port", "65536"], "'65536' is not a port from 0 to 65535"),
        (["--port", "http"], "'http' is not a port from 0 to 65535"),
        (["--twice"], "No such option '--twice'"),
    ],
)
def test_a_wrong_command_line_is_refused(
    start: Start, arguments: Sequence[str], complaint: str
) -> None:
    up = start(*arguments)
    assert up.code() == 2
    assert complaint in up.complained()
    assert not up.data.exists()


def test_production_says_what_it_lacks(start: Start) -> None:
    up = start(GATEWAY_PROFILE="production")
    assert up.code() == 1
    assert up.complained() == (
        "up: the settings cannot be used:\n"
        "  public_url: must be set (GATEWAY_PUBLIC_URL)\n"
        "  artifacts.url: must be set (GATEWAY_ARTIFACTS_URL)\n"
        "  sealing.keys: must be set (GATEWAY_SEALING_KEYS)\n"
    )


def test_the_store_that_comes_along_has_no_replica(start: Start) -> None:
    up = start(GATEWAY_STORE_ACK="replica")
    assert up.code() == 1
    complaint = "store.ack: no replica follows the store that comes along; name your own"
    assert up.complained() == f"up: {complaint}\n"


async def test_production_on_stores_of_its_own_choice(
    start: Start, stores: RunningStores, store: Store, tmp_path: Path
) -> None:
    up = start(
        GATEWAY_PROFILE="production",
        GATEWAY_PUBLIC_URL="https://gateway.example",
        GATEWAY_SEALING_KEYS=f"k1:{base64.b64encode(b'k' * 32).decode()}",
        GATEWAY_ARTIFACTS_URL=(tmp_path / "artifacts").as_uri(),
        GATEWAY_ARTIFACTS_SHARED="true",
        GATEWAY_BOOTSTRAP_API_KEY=API_KEY,
        GATEWAY_STORE_URL=stores.durable_url,
        GATEWAY_BROKER_URL=stores.soft_url,
        **admin_ports(api=0, relay=0, worker=0, delivery=0),
    )
    up.waits()
    assert "admin ports" not in up.said()
    assert "production profile" in up.said()
    assert "callbacks to public https only" in up.said()
    assert "One job, end to end" not in up.said()
    assert API_KEY not in up.said()
    assert set(pids_of(up)) == {"up"} | PROCESSES
    assert list(up.data.rglob("*.sock")) == []
    job = {"type": "document.analyze", "input": {"text": "Some words about rivers."}}
    with up.client(API_KEY) as client:
        for url in ("http://127.0.0.1:9/hook", "https://127.0.0.1/hook", "https://[::1]/hook"):
            refused = client.post("/v1/jobs", json=job | {"callbackUrl": url})
            assert (refused.status_code, refused.json()["code"]) == (422, "invalid_callback_url")
        gateway = gateway_of(up, client)
        submitted = gateway.submit(**job)
        assert submitted["statusUrl"].startswith("https://gateway.example/v1/jobs/job_")
        # Production limits how often a job may be asked after: wait for its end instead.
        ended = client.get(
            f"/v1/jobs/{submitted['jobId']}",
            params={"onComplete": "inline"},
            headers={"Prefer": "wait=30"},
        )
        assert ended.json()["results"]["words"] == 4
    up.stop(signal.SIGTERM)
    assert await store.client.ping()
