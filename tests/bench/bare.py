"""The least that a sender in Python does: a loop over aiohttp that POSTs and reads the answer.

`python -m tests.bench.bare`, its own process; what to send comes as JSON on standard input, how
long it took goes as JSON to standard output.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import uvloop


async def _post_all(
    urls: list[str], body: bytes, count: int, concurrency: int
) -> tuple[float, float]:
    """POST `count` times to `urls` in turn, `concurrency` at once.

    Returns:
        The seconds it took, and those of processor time.
    """

    async def sender(session: aiohttp.ClientSession, numbers: Iterator[int]) -> None:
        for number in numbers:
            async with session.post(urls[number % len(urls)], data=body) as response:
                await response.read()

    async def posted(session: aiohttp.ClientSession, times: int) -> None:
        numbers = iter(range(times))
        await asyncio.gather(*(sender(session, numbers) for _ in range(concurrency)))

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:
        await posted(session, min(count, 4 * concurrency))  # connections, as those measured against
        began, used = time.perf_counter(), time.process_time()
        await posted(session, count)
        return time.perf_counter() - began, time.process_time() - used


def _main() -> None:
    given: dict[str, Any] = json.loads(sys.stdin.read())
    body = str(given["body"]).encode()
    took, used = uvloop.run(_post_all(given["urls"], body, given["count"], given["concurrency"]))
    sys.stdout.write(json.dumps({"seconds": took, "processor": used}) + "\n")


if __name__ == "__main__":
    _main()
