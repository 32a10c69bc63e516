"""The server as a process: its socket, its limits on the stream, its end."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from config.settings import environment
from config.store import Store
from tests.conftest import RunningStores
from tests.gateway.conftest import SEALING

KEY = "key-of-the-tests"
UPLOAD_LIMIT = 12 * 2**20


@dataclass(slots=True)
class Served:
    """A running api process."""

    url: str
    artifacts: Path
    process: subprocess.Popen[bytes]

    def client(self) -> httpx.Client:
        """Return a client with every scope."""
        headers = {"Authorization": f"Bearer {KEY}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)


@pytest.fixture
def served(stores: RunningStores, store: Store, tmp_path: Path) -> Iterator[Served]:
    """Run the api on a socket that is ours."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    artifacts = tmp_path / "artifacts"
    environ = {
        **environment(),
        "GATEWAY_PROFILE": "development",
        "GATEWAY_PUBLIC_URL": url,
        "GATEWAY_STORE_URL": stores.durable_url,
        "GATEWAY_BROKER_URL": stores.soft_url,
        "GATEWAY_ARTIFACTS_URL": f"file://{artifacts}",
        "GATEWAY_SEALING_KEYS": SEALING,
        "GATEWAY_BOOTSTRAP_API_KEY": KEY,
        "GATEWAY_API_FD": str(listener.fileno()),
        "GATEWAY_API_UPLOAD_LIMIT_BYTES": str(UPLOAD_LIMIT),
    }
    command = [sys.executable, "-m", "gateway", "api"]
    with (
        listener,
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            command, env=environ, pass_fds=[listener.fileno()], stdout=log, stderr=log
        ) as process,
    ):
        yield Served(url=url, artifacts=artifacts, process=process)
        process.kill()


def files_in(folder: Path) -> list[Path]:
    """Return every file below `folder`."""
    return [path for path in folder.rglob("*") if path.is_file()]


REQUEST = json.dumps({"type": "document.analyze", "input": {"document": {"part": "doc"}}})


def body_of(size: int) -> Iterator[bytes]:
    """Yield a multipart body with a file of `size` bytes, in chunks."""
    yield b'--x\r\nContent-Disposition: form-data; name="job"\r\n\r\n' + REQUEST.encode()
    yield b'\r\n--x\r\nContent-Disposition: form-data; name="doc"; filename="d"\r\n\r\n'
    for _ in range(size // 65_536):
        yield b"d" * 65_536
    yield b"\r\n--x--\r\n"


MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}


def test_a_large_file_is_streamed(served: Served) -> None:
    size = UPLOAD_LIMIT
    with served.client() as client:
        answer = client.post("/v1/jobs", content=body_of(size), headers=MULTIPART)
    assert answer.status_code == 202, answer.text
    assert "server" not in answer.headers
    [file] = files_in(served.artifacts)
    assert file.parent.parent.name == answer.json()["jobId"]
    assert hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(b"d" * size).digest()


@pytest.mark.parametrize("size", [UPLOAD_LIMIT + 65_536, UPLOAD_LIMIT * 2])
def test_a_file_over_the_limit_is_cut_off(served: Served, size: int) -> None:
    with served.client() as client:
        answer = client.post("/v1/jobs", content=body_of(size), headers=MULTIPART)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        assert client.get("/livez").status_code == 200
    assert files_in(served.artifacts) == []


def test_a_client_that_goes_away_leaves_nothing(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as raw:
        raw.sendall(
            b"POST /v1/jobs HTTP/1.1\r\nHost: h\r\nContent-Length: 9000000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n"
            b"Authorization: Bearer "
            + KEY.encode()
            + b"\r\n\r\n"
            + b"".join(body_of(8_000_000))[:-9]
        )
    with served.client() as client:
        assert client.get("/readyz").status_code == 200
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(20) == 0
    assert files_in(served.artifacts) == []


def test_sigterm_ends_it_in_order(served: Served) -> None:
    with served.client() as client:
        assert client.get("/livez").status_code == 200
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(20) == 0
