"""A gateway for the flow tests: one with one partition, one with several."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.running import Gateway, running

FAST = {
    # The same schedule, quicker: three attempts.
    "GATEWAY_DELIVERY_GAPS_SECONDS": "[0, 0.1, 0.1]",
    "GATEWAY_DELIVERY_JITTER": "0",
    "GATEWAY_JOBS_RETRY_GAPS_SECONDS": "[0.1]",
    "GATEWAY_JOBS_SWEEP_SECONDS": "0.2",
}


@pytest.fixture(scope="session", params=[1, 4], ids=["one-partition", "four-partitions"])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A running gateway."""
    settings = FAST | {"GATEWAY_STORE_PARTITIONS": str(request.param)}
    with running(tmp_path_factory.mktemp("flow") / "data", settings) as started:
        yield started
