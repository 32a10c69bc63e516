"""Requests of every kind that the OpenAPI document allows, and forbids, sent to a running api.

There are no workers and nobody delivers: what is made up here must reach no other host.
"""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from config.settings import environment
from config.store import Store
from tests.conftest import RunningStores
from tests.processes import eventually

ROOT = Path(__file__).resolve().parents[2]
KEY = "key-of-the-tests"
EXAMPLES = 10

# What no schema can say makes a valid request refused: what is not there, or ended; a URL that
# leads nowhere; a cursor that no list gave; JSON that is spelled wrong, or a form in another order.
CONFIGURATION = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 404, 409, 410, 416, 422]

[[operations]]
include-operation-id = [
    "listAudit", "listJobs", "listKeys", "listTenants",
    "listDeadLetters", "countDeadLetters", "listReplays",
    "submitJob", "submitApiDocuments", "submitApiVideosTranscode",
]
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 409, 410, 422]
"""

_UNENDING = "watchJob"


@pytest.fixture
def served(stores: RunningStores, store: Store, tmp_path: Path) -> Iterator[str]:
    """Run the api, and return where."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    environ = {
        **environment(),
        "PYTHONPATH": str(ROOT),
        "GATEWAY_PROFILE": "development",
        "GATEWAY_PUBLIC_URL": url,
        "GATEWAY_STORE_URL": stores.durable_url,
        "GATEWAY_BROKER_URL": stores.soft_url,
        "GATEWAY_ARTIFACTS_URL": f"file://{tmp_path}/artifacts",
        "GATEWAY_SEALING_KEYS": "one:" + base64.b64encode(b"s" * 32).decode(),
        "GATEWAY_BOOTSTRAP_API_KEY": KEY,
        "GATEWAY_API_FD": str(listener.fileno()),
    }
    command = [sys.executable, "-m", "gateway", "api"]
    with (
        listener,
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            command, env=environ, pass_fds=[listener.fileno()], stdout=log, stderr=log
        ) as process,
    ):
        try:
            assert eventually(lambda: httpx.get(f"{url}/livez").status_code == 200)
            yield url
        finally:
            process.kill()


@pytest.mark.timeout(240)
def test_nothing_that_can_be_asked_is_answered_otherwise(served: str, tmp_path: Path) -> None:
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text(CONFIGURATION)
    ended = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            "--config-file",
            configuration,
            "run",
            f"{served}/openapi.json",
            "--phases=examples,coverage,fuzzing,stateful",
            f"--max-examples={EXAMPLES}",
            "--seed=1",
            f"--header=Authorization: Bearer {KEY}",
            f"--exclude-operation-id={_UNENDING}",
            "--suppress-health-check=all",
            "--warnings=off",
            "--request-timeout=20",
            "--no-color",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment(),
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert httpx.get(f"{served}/readyz").status_code == 200
