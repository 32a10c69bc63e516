"""Through an egress proxy: it is told the address that was vetted, and carries bytes, no trust."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from cryptography import x509

from delivery.egress import Policy
from delivery.errors import DestinationDenied
from delivery.fetch import Guarded, Request, fetch
from delivery.guard import Guard
from delivery.proxy import Proxy, Via
from delivery.resolver import PolicyResolver
from delivery.transport import AiohttpTransport, Deadlines, Gate, TransportFailed
from tests.delivery.authority import Authority

if TYPE_CHECKING:
    from tests.delivery.conftest import StartReceiver

PUBLIC = "93.184.215.14"
PUBLIC_V6 = "2606:2800:21f:cb07::1"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
MADE = b"HTTP/1.1 200 Connection established\r\nvia: it\r\n\r\n"
BRIEF = Deadlines(dns=0.3, connect=0.3, first_byte=0.3, total=0.5)
OPEN = Policy(allow_http=True, ports=None)


@dataclass(slots=True)
class ProxyServer:
    """A proxy whose every tunnel leads to one port of this machine, whatever it is asked for."""

    target: int
    answer: bytes
    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            await writer.drain()
            back, forth = await asyncio.open_connection("127.0.0.1", self.target)
            try:
                await asyncio.gather(_pump(reader, forth), _pump(back, writer))
            finally:
                forth.transport.abort()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def end(self) -> None:
        """Cancel what is under way."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while block := await reader.read(4_096):
            writer.write(block)
            await writer.drain()
        writer.write_eof()


@asynccontextmanager
async def proxy_to(target: int, answer: bytes = MADE) -> AsyncIterator[ProxyServer]:
    served = ProxyServer(target, answer)
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    async with server:
        yield served
        await served.end()


async def no_lookup(host: str) -> Sequence[str]:
    raise AssertionError(f"{host} was looked up")


@asynccontextmanager
async def transport_through(
    port: int,
    records: Sequence[str],
    *,
    host: str = "127.0.0.1",
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[AiohttpTransport]:
    async def lookup(_name: str) -> Sequence[str]:
        return records

    async def find_proxy(name: str) -> Sequence[str]:
        assert name == "proxy"
        return ["127.0.0.1"]

    proxy = Proxy(host=host, port=port, authorization="Basic dTpw")
    gate = Gate(
        check=Guard(policy=OPEN),
        resolver=PolicyResolver(lookup, OPEN),
        via=Via(proxy=proxy, lookup=find_proxy),
    )
    async with AiohttpTransport(gate=gate, deadlines=BRIEF, ssl_context=ssl_context) as transport:
        yield transport


async def post(transport: AiohttpTransport, url: str) -> httpx.Response:
    return await transport.handle_async_request(httpx.Request("POST", url, content=b"{}"))


@pytest.mark.parametrize("host", ["127.0.0.1", "proxy"])
@pytest.mark.parametrize(
    ("url", "records", "asked"),
    [
        ("http://h.example/hook", [PUBLIC], f"{PUBLIC}:80"),
        ("http://h.example:8080/hook", [PUBLIC_V6], f"[{PUBLIC_V6}]:8080"),
        (f"http://{PUBLIC}/hook", [], f"{PUBLIC}:80"),
    ],
)
async def test_the_proxy_is_told_the_vetted_address(
    host: str, url: str, records: list[str], asked: str, start_receiver: StartReceiver
) -> None:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(OK)

    receiver = await start_receiver(script)
    async with (
        proxy_to(receiver.port) as proxy,
        transport_through(proxy.port, records, host=host) as transport,
    ):
        for _ in range(2):
            assert (await post(transport, url)).status_code == 200
    [head] = proxy.heads  # kept open, as without a proxy
    assert head.decode().split("\r\n") == [
        f"CONNECT {asked} HTTP/1.1",
        f"Host: {asked}",
        "Proxy-Authorization: Basic dTpw",
        "",
        "",
    ]
    assert [head.split(b"\r\n")[0] for head, _ in receiver.requests] == [b"POST /hook HTTP/1.1"] * 2
    assert b"dTpw" not in b"".join(head for head, _ in receiver.requests)


@pytest.mark.parametrize(
    ("certified", "is_trusted"), [("h.example", True), ("proxy", False), (PUBLIC, False)]
)
async def test_tls_is_verified_against_the_name(
    certified: str, is_trusted: bool, start_receiver: StartReceiver, tmp_path: Path
) -> None:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(OK)

    authority = Authority(tmp_path)
    name: x509.GeneralName = x509.DNSName(certified)
    if certified == PUBLIC:
        name = x509.IPAddress(ipaddress.ip_address(certified))
    receiver = await start_receiver(script, authority.server(name))
    async with (
        proxy_to(receiver.port) as proxy,
        transport_through(proxy.port, [PUBLIC], ssl_context=authority.client()) as transport,
    ):
        if is_trusted:
            assert (await post(transport, "https://h.example/")).status_code == 200
        else:
            with pytest.raises(TransportFailed) as caught:
                await post(transport, "https://h.example/")
            assert caught.value.code == "tls"
    assert {head.split(b"\r\n")[0] for head in proxy.heads} == {
        f"CONNECT {PUBLIC}:443 HTTP/1.1".encode()
    }


@pytest.mark.parametrize(
    ("url", "records"),
    [
        ("http://h.example/", ["10.0.0.1"]),
        ("http://h.example/", [PUBLIC, "127.0.0.1"]),
        ("http://169.254.169.254/", []),
        ("http://[::1]/", []),
    ],
)
async def test_a_proxy_opens_nothing(url: str, records: list[str]) -> None:
    async with proxy_to(1) as proxy, transport_through(proxy.port, records) as transport:
        with pytest.raises(DestinationDenied):
            await post(transport, url)
    assert proxy.heads == []


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://h.example/\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 9_000,
        b"",
    ],
    ids=["407", "302", "2000", "ssh", "speaks-first", "long-head", "silent"],
)
async def test_a_proxy_that_makes_no_tunnel_is_no_connection(answer: bytes) -> None:
    async with (
        proxy_to(1, answer=answer) as proxy,
        transport_through(proxy.port, [PUBLIC, PUBLIC_V6]) as transport,
    ):
        with pytest.raises(TransportFailed) as caught:
            await post(transport, "http://h.example/")
    assert caught.value.code == "connect"
    assert "127.0.0.1" not in str(caught.value)


async def test_every_record_is_tried() -> None:
    answer = b"HTTP/1.1 502 Bad Gateway\r\n\r\n"
    records = [PUBLIC, PUBLIC_V6, "8.8.8.8"]
    async with (
        proxy_to(1, answer=answer) as proxy,
        transport_through(proxy.port, records) as transport,
    ):
        with pytest.raises(TransportFailed):
            await post(transport, "http://h.example/")
    asked = [head.split()[1].decode() for head in proxy.heads]
    assert asked == [f"{PUBLIC}:80", f"[{PUBLIC_V6}]:80", "8.8.8.8:80"]


async def test_what_is_fetched_for_clients_goes_through_it_too(
    start_receiver: StartReceiver,
) -> None:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(OK)

    async def lookup(_host: str) -> Sequence[str]:
        return [PUBLIC]

    receiver = await start_receiver(script)
    body = bytearray()
    async with proxy_to(receiver.port) as proxy:
        answer = await fetch(
            Request(method="GET", url="http://h.example/video", headers={}),
            body.extend,
            limit=100,
            reach=Guarded(
                policy=OPEN, lookup=lookup, proxy=Proxy(host="127.0.0.1", port=proxy.port)
            ),
            deadlines=BRIEF,
        )
    assert (answer.status, bytes(body)) == (200, b"ok")
    assert [head.split()[1] for head in proxy.heads] == [f"{PUBLIC}:80".encode()]
