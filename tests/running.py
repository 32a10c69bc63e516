"""A whole gateway for a test: `./scripts/up` and its processes, started and stopped by it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from pytest_httpserver import HTTPServer
from redis import Redis
from werkzeug import Request, Response

from config.settings import environment
from tests.processes import PATIENCE, eventually, is_alive

ROOT = Path(__file__).resolve().parent.parent
API_KEY = "gwk_a-key-for-tests-only"


@dataclass(slots=True, kw_only=True)
class Gateway:
    """A running gateway."""

    data: Path
    process: subprocess.Popen[bytes]
    client: httpx.Client

    def record(self) -> dict[str, Any]:
        """Return what `up` says of itself."""
        kept: dict[str, Any] = json.loads((self.data / "run.json").read_text())
        return kept

    def pid(self, role: str) -> int:
        """Return the process that `up` started for `role`."""
        return int(self.record()["pids"][role])

    def kill(self, role: str) -> None:
        """End the process of `role` and those it started, as a crash would; await the next."""
        pid = self.pid(role)
        for each in (*descendants(pid), pid):
            # Some end by themselves, as the one that lists them did.
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        assert eventually(lambda: not is_alive(pid))
        assert eventually(lambda: self.record()["pids"].get(role, pid) != pid)

    def terminate(self, role: str) -> int:
        """Tell the process of `role` to stop; return its identifier at once."""
        pid = self.pid(role)
        os.kill(pid, signal.SIGTERM)
        return pid

    def replaced(self, role: str, pid: int) -> bool:
        """Whether the process `pid` of `role` is gone and another has taken its place."""
        return not is_alive(pid) and self.record()["pids"].get(role, pid) != pid

    @contextmanager
    def paused(self, role: str) -> Iterator[None]:
        """Let the process of `role` and those it started do nothing inside the block."""
        pid = self.pid(role)
        stopped = [pid, *descendants(pid)]
        for each in stopped:
            os.kill(each, signal.SIGSTOP)
        try:
            yield
        finally:
            for each in stopped:
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGCONT)

    @contextmanager
    def connection(self, role: str) -> Iterator[Redis]:
        """Connect to the store or the broker."""
        with Redis.from_url(self.record()[f"{role}Url"], socket_timeout=PATIENCE) as client:
            yield client

    def submit(self, **members: Any) -> dict[str, Any]:
        """Submit a job; return its document."""
        response = self.client.post("/v1/jobs", json=members)
        assert response.status_code == 202, response.text
        document: dict[str, Any] = response.json()
        return document

    def job(self, job_id: str) -> dict[str, Any]:
        """Return the job's document, whether it ended or not."""
        response = self.client.get(f"/v1/jobs/{job_id}", params={"onComplete": "inline"})
        assert response.status_code == 200, response.text
        document: dict[str, Any] = response.json()
        return document

    def ended(self, job_id: str, patience: float = PATIENCE) -> dict[str, Any]:
        """Return the job's document once it has ended."""
        return self.wait(
            lambda: self.job(job_id),
            lambda document: document["status"] in {"completed", "failed", "cancelled"},
            patience,
        )

    def called_back(
        self, job_id: str, status: str = "delivered", patience: float = PATIENCE
    ) -> dict[str, Any]:
        """Return the job's document once its callback is `status`."""
        return self.wait(
            lambda: self.job(job_id),
            lambda document: document["callback"]["status"] == status,
            patience,
        )

    def wait(
        self,
        look: Callable[[], dict[str, Any]],
        holds: Callable[[dict[str, Any]], bool],
        patience: float,
    ) -> dict[str, Any]:
        """Look until it holds; fail with what was seen last."""
        deadline = time.monotonic() + patience
        while True:
            seen = look()
            if holds(seen):
                return seen
            assert time.monotonic() < deadline, f"still {seen}"
            time.sleep(0.02)

    def secret(self, url: str) -> str:
        """Register the endpoint of `url` and return its signing secret."""
        made = self.client.post("/v1/endpoints", json={"url": url})
        assert made.status_code in {200, 201}, made.text
        shown = self.client.get(f"/v1/endpoints/{made.json()['id']}/secret")
        assert shown.status_code == 200, shown.text
        return str(shown.json()["secret"])

    def dead_letters(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the operators' script against this gateway."""
        command = [sys.executable, str(ROOT / "scripts" / "dead_letters.py"), *arguments]
        return subprocess.run(
            [*command, "--data-dir", str(self.data)],
            capture_output=True,
            text=True,
            check=False,
            env=environment() | {"PYTHONPATH": str(ROOT), "GATEWAY_API_KEY": API_KEY},
        )


def descendants(pid: int) -> list[int]:
    """Return what a process started, and what those did."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,ppid=", "-A"], capture_output=True, text=True, check=True
    )
    children: dict[int, list[int]] = {}
    for line in listed.stdout.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found: list[int] = []
    waiting = [pid]
    while waiting:
        of = children.get(waiting.pop(), [])
        found += of
        waiting += of
    return found


@contextmanager
def running(data: Path, settings: Mapping[str, str]) -> Iterator[Gateway]:
    """Start a gateway on `data` with GATEWAY_ variables, and stop it in order."""
    inherited = {
        name: value for name, value in environment().items() if not name.startswith("GATEWAY_")
    }
    command = [sys.executable, "-m", "gateway", "up", "--no-demo", "--port", "0"]
    with (data.parent / f"{data.name}.up.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--data-dir", str(data)],
            cwd=ROOT,
            env=inherited
            | {"GATEWAY_BOOTSTRAP_API_KEY": API_KEY, "PYTHONPATH": str(ROOT), **settings},
            stdout=log,
            stderr=log,
        )
        try:
            record = data / "run.json"
            said = Path(log.name)

            def is_up() -> bool:
                assert process.poll() is None, said.read_text()
                return record.exists() and "Ctrl-C" in said.read_text()

            assert eventually(is_up), said.read_text()
            url = json.loads(record.read_text())["apiUrl"]
            headers = {"Authorization": f"Bearer {API_KEY}"}
            with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
                yield Gateway(data=data, process=process, client=client)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, Path(log.name).read_text()


@dataclass(slots=True)
class Inbox:
    """A receiver that keeps what it gets and answers as it is told; 401 to what `judge` refuses."""

    server: HTTPServer
    path: str
    answers: list[int] = field(default_factory=list)
    always: int = 200
    judge: Callable[[Mapping[str, str], bytes], bool] = lambda _headers, _body: True
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Return the callback URL."""
        return self.server.url_for(self.path)

    def take(self, request: Request) -> Response:
        """Keep a request; answer with what is planned, then always the same."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = request.get_data()
        self.received.append((headers, body))
        if not self.judge(headers, body):
            return Response(status=401)
        status = self.answers.pop(0) if self.answers else self.always
        return Response(status=status)


def inbox(server: HTTPServer, path: str, *answers: int, always: int = 200) -> Inbox:
    """Open an inbox under `path` of the receiver."""
    made = Inbox(server, path, list(answers), always)
    server.expect_request(path, method="POST").respond_with_handler(made.take)
    return made
