"""Many event streams at once: a load for tests, and at length `./scripts/soak_streams`."""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from config.clock import SECOND, SystemClock, rfc3339
from tests.processes import resident_bytes
from tests.running import API_KEY, running

_AT_ONCE = 100
_FILES_BESIDE = 500
_BEGIN_SECONDS = 10


@dataclass(slots=True)
class StreamLoad:
    """Clients that follow jobs at one gateway."""

    url: str
    key: str
    connecting: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))

    async def run(
        self, job_ids: Sequence[str], *, clients: int, work: Callable[[], Awaitable[None]]
    ) -> Counter[str]:
        """Open `clients` streams of jobs in turn, then `work`; return how often each end was told.

        Args:
            job_ids: of jobs that do not end before `work` begins.
            clients: how many streams.
            work: ends the jobs.
        """
        begun = asyncio.Barrier(clients + 1)

        async def working() -> None:
            await begun.wait()
            await work()

        async with asyncio.TaskGroup() as group:
            group.create_task(working())
            following = [
                group.create_task(self._follow(job_ids[at % len(job_ids)], begun))
                for at in range(clients)
            ]
        return Counter(task.result() for task in following)

    async def _follow(self, job_id: str, begun: asyncio.Barrier) -> str:
        """Follow one job, and return the name of the last event before the stream ended."""
        parts = urlsplit(self.url)
        async with self.connecting:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**20)
        try:
            writer.write(
                f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: {parts.netloc}\r\n"
                f"Authorization: Bearer {self.key}\r\n\r\n".encode()
            )
            name = await _next_event(reader)
            assert name == "snapshot", name
            await begun.wait()
            last = name
            while name := await _next_event(reader):
                last = name
            return last
        finally:
            writer.close()


async def _next_event(reader: asyncio.StreamReader) -> str:
    """Return the name of the next event; empty at the end of the stream."""
    while line := await reader.readline():
        if line.startswith(b"event: "):
            return line[7:].strip().decode()
        if line == b"0\r\n":
            return ""
    return "cut off"


def main(argv: Sequence[str]) -> int:
    """Run and return the exit code: 0 when every stream told the end, within the memory."""
    parser = argparse.ArgumentParser(
        prog="scripts/soak_streams",
        description="Starts a gateway, opens event streams, runs the jobs they follow, and checks "
        "that each was told the end and that the api process stayed small.",
    )
    parser.add_argument("--clients", type=int, default=2_000, help="streams at once (2000)")
    parser.add_argument("--jobs", type=int, default=40, help="jobs that they follow (40)")
    parser.add_argument("--rounds", type=int, default=5, help="how often, one by one (5)")
    parser.add_argument(
        "--megabytes", type=int, default=300, help="that the api process may take (300)"
    )
    given = parser.parse_args(argv)
    _allow_files(given.clients + _FILES_BESIDE)
    folder = Path(tempfile.mkdtemp(prefix="soak-streams-"))
    settings = {"GATEWAY_WORKER_THREADS": str(given.jobs)}
    faults = 0
    with running(folder / "data", settings) as gateway:
        for number in range(given.rounds):
            began = time.monotonic()
            ended = asyncio.run(_round(str(gateway.client.base_url), given.clients, given.jobs))
            size = resident_bytes(gateway.pid("api")) // 2**20
            _say(
                f"round {number + 1}: {dict(ended)} in {time.monotonic() - began:.1f} s, {size} MB"
            )
            faults += ended != {"completed": given.clients} or size > given.megabytes
    _say(f"{faults} of {given.rounds} rounds at fault; files and logs are in {folder}")
    return 1 if faults else 0


async def _round(url: str, clients: int, jobs: int) -> Counter[str]:
    """Let `clients` follow jobs that begin once all of them are connected."""
    url = url.rstrip("/")
    begin = rfc3339(SystemClock().now() + _BEGIN_SECONDS * SECOND)
    echo = {"payload": 1, "seconds": 10, "steps": 20}
    headers = {"Authorization": f"Bearer {API_KEY}"}
    job_ids = []
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        for _ in range(jobs):
            job = {"type": "demo.echo", "input": echo, "runAt": begin}
            answer = await client.post("/v1/jobs", json=job)
            answer.raise_for_status()
            job_ids.append(str(answer.json()["jobId"]))

    async def nothing() -> None:
        """The jobs end by themselves."""

    return await StreamLoad(url, API_KEY).run(job_ids, clients=clients, work=nothing)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _allow_files(number: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number:
        limit = number if hard == resource.RLIM_INFINITY else min(number, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
