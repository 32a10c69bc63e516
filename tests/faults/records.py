"""Gateways whose job types keep records, and reading these records."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.scripts import META_PREFIX
from tests.faults.faulty_types import lines
from tests.processes import eventually
from tests.running import Gateway

FAULTY = {
    "GATEWAY_JOBS_MODULES": '["gateway.handlers_.echo", "faulty_types"]',
    "GATEWAY_HANDLERS_PATH": str(Path(__file__).resolve().parent),
    "GATEWAY_JOBS_SWEEP_SECONDS": "0.2",
    "GATEWAY_JOBS_RETRY_GAPS_SECONDS": "[0.2]",
    "GATEWAY_DELIVERY_GAPS_SECONDS": "[0, 0.2, 0.5, 1, 1, 1]",
}
"""Settings of a gateway that offers the faulty job types and does not take its time."""


def count(gateway: Gateway, record: Record, **members: Any) -> str:
    """Submit a job that counts its attempts; return its identifier."""
    given = {"record": str(record), **members.pop("input", {})}
    return str(gateway.submit(type="faulty.count", input=given, **members)["jobId"])


def await_workers(gateway: Gateway, processes: int) -> None:
    """Return when so many worker processes are on the muster."""
    with gateway.connection("store") as store:
        assert eventually(lambda: store.hlen(f"{META_PREFIX}threads") == processes)


@dataclass(frozen=True, slots=True)
class Record:
    """The file that attempts are noted in."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def attempts(self) -> list[tuple[str, int, int]]:
        """Return (job, attempt, process) of every attempt begun so far."""
        noted = [line.split() for line in lines(self.path) if line.startswith("job_")]
        return [(job, int(attempt), int(process)) for job, attempt, process in noted]

    def executions(self) -> Counter[str]:
        """Return how often each job was begun."""
        return Counter(job for job, _, _ in self.attempts())

    def has(self, beginning: str) -> bool:
        """Return whether a line begins so."""
        return any(line.startswith(beginning) for line in lines(self.path))

    def moments(self) -> set[str]:
        """Return the moments at which attempts wait."""
        return {line for line in lines(self.path) if not line.startswith("job_")}
