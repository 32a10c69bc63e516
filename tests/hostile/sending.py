"""A sender in a process of its own, so that its memory can be told from its receivers'.

`python -m tests.hostile.sending NUMBER` reads `{"healthy": url, "rounds": [{case: url}]}`, as JSON.
The cases of a round are attempted together, each so many times at once, round after round, and an
attempt at the healthy receiver follows each round. It prints, by case, what came of them, the most
bytes of a body that were read in its round, and by how many bytes the process had grown since its
beginning.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from typing import Any, cast

import httpx

from config.clock import SystemClock
from delivery.attempt import name_of
from delivery.egress import Policy, parse_destination
from delivery.guard import Guard
from delivery.outcomes import Exchange
from delivery.resolver import PolicyResolver
from delivery.sender import Sender
from delivery.transport import AiohttpTransport, Answer, Deadlines, Gate

LOOPBACK = Policy(allow_http=True, allow_loopback=True, ports=None)
DEADLINES = Deadlines(dns=5, connect=5, first_byte=5, total=5)


async def _nobody(host: str) -> list[str]:
    raise OSError(None, host)


class _Noting(AiohttpTransport):
    """The transport, taking note of the longest body that was read."""

    most = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        self.most = max(self.most, len(cast("Answer", response.stream).body))
        return response


def _peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


async def _attempts(sender: Sender, url: str, count: int) -> list[Exchange]:
    destination = parse_destination(url, LOOPBACK)
    sends = (sender.send(destination, {"x-one": "1"}, b"{}") for _ in range(count))
    return list(await asyncio.gather(*sends))


async def main(number: int, healthy: str, rounds: list[dict[str, str]]) -> dict[str, Any]:
    """Send, and return what there is to say."""
    gate = Gate(check=Guard(policy=LOOPBACK), resolver=PolicyResolver(_nobody, LOOPBACK))
    said: dict[str, Any] = {}
    transport = _Noting(gate=gate, deadlines=DEADLINES)
    async with transport:
        sender = Sender(transport, SystemClock())
        await _attempts(sender, healthy, number)
        before = _peak()
        for cases in rounds:
            transport.most = 0
            together = (_attempts(sender, url, number) for url in cases.values())
            results = await asyncio.gather(*together)
            grown, read = _peak() - before, transport.most
            [after] = await _attempts(sender, healthy, 1)
            for case, exchanges in zip(cases, results, strict=True):
                said[case] = {
                    "outcomes": sorted({name_of(each.outcome) for each in exchanges}),
                    "kept": max(len(each.answer) for each in exchanges),
                    "read": read,
                    "grown": grown,
                    "after": name_of(after.outcome),
                }
    return said


if __name__ == "__main__":
    json.dump(asyncio.run(main(int(sys.argv[1]), **json.load(sys.stdin))), sys.stdout)
