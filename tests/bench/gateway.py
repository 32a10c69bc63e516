"""The whole gateway, for figures that go through all of it: P3, P4, P5."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any

import aiohttp

from config.ids import random_float
from tests.bench.bench import Bench, open_loop
from tests.bench.report import Figure
from tests.bench.samples import described
from tests.bench.surroundings import API_KEY, BenchError, SinkHandle, Surroundings, sink

_JOBS = {"GATEWAY_JOBS_MODULES": '["tests.bench.jobs"]'}
_CALLBACK_RATE = 200.0
_SUBMIT_RATE = 500.0
_SUBMITTERS = 64


class Api:
    """An api process, and a client with enough connections to it."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = f"{url}/v1/jobs"

    async def submit(self, due: float, callback_url: str | None = None) -> None:
        """Submit one job.

        Raises:
            BenchError: it was not accepted.
        """
        members: dict[str, Any] = {"type": "bench.note", "input": {"due": due}}
        if callback_url:
            members["callbackUrl"] = callback_url
        async with self._session.post(self._url, json=members) as answer:
            if answer.status != 202:
                raise BenchError(f"a job was refused: {answer.status} {await answer.text()}")
            await answer.read()

    async def submit_many(self, count: int, callback_url: str) -> None:
        """Submit so many as fast as they are accepted."""
        numbers = iter(range(count))

        async def submitter() -> None:
            for _ in numbers:
                await self.submit(0.0, callback_url)

        await asyncio.gather(*(submitter() for _ in range(_SUBMITTERS)))


@asynccontextmanager
async def api_alone(around: Surroundings) -> AsyncIterator[Api]:
    """Run an api process, without anything that takes work from it."""
    port = _free_port()
    variables = {**_JOBS, "GATEWAY_API_PORT": str(port)}
    headers = {"Authorization": f"Bearer {API_KEY}"}
    url = f"http://127.0.0.1:{port}"
    async with AsyncExitStack() as stack:
        stack.enter_context(around.process("api", _role("api"), **variables))
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=connector, headers=headers)
        )

        async def is_live() -> bool:
            try:
                async with session.get(f"{url}/livez") as answer:
                    return answer.status == 200
            except aiohttp.ClientError:
                return False

        await around.until(is_live, "the api does not answer")
        yield Api(session, url)


@asynccontextmanager
async def whole_gateway(around: Surroundings) -> AsyncIterator[Api]:
    """Run every process of the gateway."""
    async with api_alone(around) as api:
        with workers(around):
            yield api


@contextmanager
def workers(around: Surroundings) -> Iterator[None]:
    """Run every process but the api."""
    with ExitStack() as stack:
        for role in ("relay", "worker"):
            stack.enter_context(around.process(role, _role(role), **_JOBS))
        stack.enter_context(around.delivery(**_JOBS))
        yield


def _role(role: str) -> list[str]:
    return [sys.executable, "-P", "-m", "gateway", role]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return int(unused.getsockname()[1])


async def p3(bench: Bench) -> Figure:
    """From a handler's return to its callback's arrival, under load."""
    seconds = bench.pick(20.0, 1.5)
    rate = bench.pick(_CALLBACK_RATE, 50.0)
    async with sink(1) as to:
        await bench.around.empty()
        url = f"http://{to.places[0]}/hook"
        bench.progress.at("P3", "the gateway starts", 0.1)
        async with whole_gateway(bench.around) as api:
            await _warm_up(bench.around, api, to, url, bench.pick(200, 10))
            bench.progress.at("P3", f"{rate:.0f} jobs a second", 0.3)
            await to.tell(reset=True)
            await to.tell(keep=True)

            async def submit(due: float) -> None:
                await api.submit(due, url)

            await open_loop(rate=rate, seconds=seconds, act=submit)
            late = await _arrivals(bench.around, to, int(rate * seconds))
    after = described([1e3 * (moment - data["returned"]) for moment, data in late])
    whole = described([1e3 * (moment - data["due"]) for moment, data in late])
    return Figure(
        name="P3",
        what=f"from handler's return to callback, at {rate:.0f} jobs/s",
        target="p50 10 ms, p99 50 ms",
        measured=f"p50 {after['p50']:.1f} ms, p99 {after['p99']:.1f} ms",
        ok=after["p50"] <= 10 and after["p99"] <= 50,
        details={"milliseconds": after, "fromSubmitMilliseconds": whole, "perSecond": rate},
    )


async def p4(bench: Bench) -> Figure:
    """How many submissions an api process accepts, and how fast, with every worker stopped."""
    seconds = bench.pick(10.0, 1.0)
    rate = bench.pick(_SUBMIT_RATE, 100.0)
    waits: list[float] = []
    loop = asyncio.get_running_loop()
    await bench.around.empty()
    async with api_alone(bench.around) as api:
        await _submit_for(api, 0.5)
        bench.progress.at("P4", "as many as it takes", 0.2)
        accepted = await _submit_for(api, seconds) / seconds

        async def submit(due: float) -> None:
            await api.submit(due)
            waits.append(1e3 * (loop.time() - due))

        bench.progress.at("P4", f"{rate:.0f} a second", 0.6)
        await open_loop(rate=rate, seconds=seconds, act=submit)
    spread = described(waits)
    return Figure(
        name="P4",
        what=f"accepted submits; and their wait at {rate:.0f}/s",
        target="1,500/s; p99 25 ms",
        measured=f"{accepted:,.0f}/s; p99 {spread['p99']:.1f} ms",
        ok=accepted >= 1_500 and spread["p99"] <= 25,
        details={"perSecond": round(accepted), "milliseconds": spread, "atPerSecond": rate},
    )


async def _submit_for(api: Api, seconds: float) -> int:
    """Submit over so many connections at once as fast as they are accepted; return how many."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds

    async def submitter() -> int:
        count = 0
        while loop.time() < until:
            await api.submit(0.0)
            count += 1
        return count

    return sum(await asyncio.gather(*(submitter() for _ in range(_SUBMITTERS))))


async def p5(bench: Bench) -> Figure:
    """From submit to the handler's start, with nothing else to do."""
    count = bench.pick(200, 10)
    loop = asyncio.get_running_loop()
    async with sink(1) as to:
        await bench.around.empty()
        url = f"http://{to.places[0]}/hook"
        bench.progress.at("P5", "the gateway starts", 0.1)
        async with whole_gateway(bench.around) as api:
            await _warm_up(bench.around, api, to, url, bench.pick(50, 5))
            await to.tell(reset=True)
            await to.tell(keep=True)
            for number in range(count):
                bench.progress.at("P5", f"{count} jobs, one by one", 0.2 + 0.8 * number / count)
                await api.submit(loop.time(), url)
                await asyncio.sleep(0.05 + 0.05 * random_float())
            noted = await _arrivals(bench.around, to, count)
    spread = described([1e3 * (data["began"] - data["due"]) for _, data in noted])
    return Figure(
        name="P5",
        what="from submit to the handler's start, idle",
        target="p50 25 ms, p99 60 ms",
        measured=f"p50 {spread['p50']:.1f} ms, p99 {spread['p99']:.1f} ms",
        ok=spread["p50"] <= 25 and spread["p99"] <= 60,
        details={"milliseconds": spread},
    )


async def _warm_up(around: Surroundings, api: Api, to: SinkHandle, url: str, count: int) -> None:
    await to.tell(keep=True)
    for _ in range(count):
        await api.submit(0.0, url)
    await _arrivals(around, to, count)


async def _arrivals(
    around: Surroundings, to: SinkHandle, count: int
) -> list[tuple[float, dict[str, Any]]]:
    """Wait for `count` callbacks; return when each arrived, and the result that it tells."""

    async def all_arrived() -> bool:
        return await to.count() >= count

    await around.until(all_arrived, "not every callback has arrived")
    return list(_results((await to.tell(take=True))["kept"]))


def _results(kept: list[tuple[float, str, str]]) -> Iterator[tuple[float, dict[str, Any]]]:
    for moment, _, body in kept:
        yield moment, json.loads(body)["data"]["results"]
