"""The transport and its resolver: what may be dialled, and what a hostile answer may cost."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import httpx
import pytest
import uvloop
from aiohttp.abc import AbstractResolver, ResolveResult

from delivery.egress import Policy
from delivery.errors import DestinationDenied
from delivery.resolver import AresLookup, PolicyResolver
from delivery.transport import (
    KEEP_ALIVE,
    MAX_ANSWER,
    AddressInfo,
    AiohttpTransport,
    Answer,
    Deadlines,
    TransportFailed,
    open_socket,
)

if TYPE_CHECKING:
    from tests.delivery.conftest import Script, StartReceiver

PUBLIC = "93.184.215.14"
BRIEF = Deadlines(dns=0.3, connect=0.3, first_byte=0.3, total=0.5)


async def no_lookup(host: str) -> Sequence[str]:
    raise AssertionError(f"{host} was looked up")


class Sockets:
    """A socket factory that notes each address it was asked for, and makes none."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, address: AddressInfo) -> socket.socket:
        self.asked.append(address[4][0])
        raise OSError(errno.ENETUNREACH, "no network in this test")


@asynccontextmanager
async def transport_for(
    policy: Policy,
    lookup: Callable[[str], Awaitable[Sequence[str]]] = no_lookup,
    socket_factory: Callable[[AddressInfo], socket.socket] = open_socket,
    deadlines: Deadlines | None = None,
    connections: int = 512,
) -> AsyncIterator[AiohttpTransport]:
    resolver = PolicyResolver(lookup, policy)
    async with AiohttpTransport(
        policy=policy,
        resolver=resolver,
        deadlines=deadlines,
        connections=connections,
        socket_factory=socket_factory,
    ) as transport:
        yield transport
    await resolver.close()


async def post(transport: AiohttpTransport, url: str) -> httpx.Response:
    return await transport.handle_async_request(httpx.Request("POST", url, content=b"{}"))


async def fails_with(transport: AiohttpTransport, url: str) -> str:
    with pytest.raises(TransportFailed) as caught:
        await post(transport, url)
    assert "127.0.0.1" not in str(caught.value)
    return caught.value.code


def replies(*chunks: bytes) -> Script:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.writelines(chunks)

    return script


def replies_and_closes(*chunks: bytes) -> Script:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.writelines(chunks)
        await writer.drain()
        writer.close()

    return script


def replies_for_ever(head: bytes, piece: bytes, pause: float = 0) -> Script:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return script


async def resets(writer: asyncio.StreamWriter) -> None:
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def never_answers(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


# What may be dialled


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.0.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "168.63.129.16",
        "0.0.0.0",
        "[::1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:7f00:1::]",
        "[fd00:ec2::254]",
    ],
)
async def test_a_literal_is_denied_before_a_socket_is_made(host: str) -> None:
    sockets = Sockets()
    async with transport_for(Policy(), socket_factory=sockets) as transport:
        with pytest.raises(DestinationDenied):
            await post(transport, f"https://{host}/")
    assert sockets.asked == []


@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],
        [PUBLIC, "10.0.0.1"],
        ["10.0.0.1", PUBLIC],
        [PUBLIC, "::1"],
        ["2606:4700::1", "fe80::1"],
        [PUBLIC, "::ffff:8.8.8.8"],
        [PUBLIC, "not an address"],
    ],
    ids="+".join,
)
async def test_one_bad_record_denies_the_host(answers: list[str]) -> None:
    async def lookup(host: str) -> Sequence[str]:
        return answers

    sockets = Sockets()
    async with transport_for(Policy(), lookup, sockets) as transport:
        with pytest.raises(DestinationDenied):
            await post(transport, "https://h.example/")
    assert sockets.asked == []


class Unchecked(AbstractResolver):
    """A resolver that lets everything through: what a hole in the first gate would look like."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002  aiohttp's signature
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=0, proto=0, flags=0)
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing to release."""


@pytest.mark.parametrize(
    "addresses", [["10.0.0.1"], ["10.0.0.1", "::1"], ["127.0.0.1", "10.0.0.1", "fe80::1"]]
)
async def test_the_second_gate_holds_without_the_first(addresses: list[str]) -> None:
    sockets = Sockets()
    async with AiohttpTransport(
        policy=Policy(), resolver=Unchecked(*addresses), socket_factory=sockets
    ) as transport:
        with pytest.raises(DestinationDenied):
            await post(transport, "https://h.example/")
    assert sockets.asked == []


async def test_a_name_that_changes_is_looked_up_once_and_dialled_as_checked() -> None:
    answers = [[PUBLIC], ["127.0.0.1"]]

    async def lookup(host: str) -> Sequence[str]:
        return answers.pop(0)

    sockets = Sockets()
    async with transport_for(Policy(), lookup, sockets) as transport:
        assert await fails_with(transport, "https://h.example/") == "connect"
        assert sockets.asked == [PUBLIC]
        assert len(answers) == 1
        with pytest.raises(DestinationDenied):
            await post(transport, "https://h.example/")
    assert sockets.asked == [PUBLIC]


async def test_localhost_needs_no_look_up(start_receiver: StartReceiver, loopback: Policy) -> None:
    receiver = await start_receiver(replies(OK))
    async with transport_for(loopback) as transport:
        response = await post(transport, f"http://localhost:{receiver.port}/")
    assert response.status_code == 200


# Look-ups


async def test_one_look_up_serves_everybody_and_survives_who_gives_up() -> None:
    asked: list[str] = []
    begun = asyncio.Event()
    answer: asyncio.Future[Sequence[str]] = asyncio.get_running_loop().create_future()

    async def lookup(host: str) -> Sequence[str]:
        asked.append(host)
        begun.set()
        return await answer

    resolver = PolicyResolver(lookup, Policy())
    first, *others = [asyncio.ensure_future(resolver.resolve("h.example", 443)) for _ in range(5)]
    await begun.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    answer.set_result([PUBLIC])
    for result in await asyncio.gather(*others):
        assert [found["host"] for found in result] == [PUBLIC]
    assert asked == ["h.example"]


async def test_a_failed_look_up_nobody_waits_for_leaves_no_trace() -> None:
    begun, end = asyncio.Event(), asyncio.Event()

    async def lookup(host: str) -> Sequence[str]:
        begun.set()
        await end.wait()
        raise OSError(None, "no such name")

    resolver = PolicyResolver(lookup, Policy())
    waiter = asyncio.ensure_future(resolver.resolve("h.example"))
    await begun.wait()
    waiter.cancel()
    end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    with pytest.raises(OSError, match="no such name"):
        await resolver.resolve("h.example")
    await resolver.close()


@pytest.mark.parametrize(
    "answers",
    [pytest.param([], id="none"), pytest.param([PUBLIC] * 65, id="too-many")],
)
async def test_an_odd_number_of_addresses_is_a_dns_failure(answers: list[str]) -> None:
    async def lookup(host: str) -> Sequence[str]:
        return answers

    async with transport_for(Policy(), lookup) as transport:
        assert await fails_with(transport, "https://h.example/") == "dns"


async def test_a_look_up_ends_at_its_deadline() -> None:
    async def lookup(host: str) -> Sequence[str]:
        await asyncio.Event().wait()
        raise AssertionError

    resolver = PolicyResolver(lookup, Policy(), deadline=0.05)
    with pytest.raises(OSError, match="too long"):
        await resolver.resolve("h.example")


async def test_look_ups_are_bounded_and_the_wait_counts() -> None:
    running: list[str] = []

    async def lookup(host: str) -> Sequence[str]:
        running.append(host)
        await asyncio.Event().wait()
        raise AssertionError

    resolver = PolicyResolver(lookup, Policy(), deadline=0.05, max_lookups=2)
    results = await asyncio.gather(
        *(resolver.resolve(f"h{number}.example") for number in range(3)), return_exceptions=True
    )
    assert all(isinstance(result, OSError) for result in results)
    assert running == ["h0.example", "h1.example"]


class NameServer(asyncio.DatagramProtocol):
    """Answers A queries for one name with one address, others with silence or NXDOMAIN."""

    def __init__(self) -> None:
        self.silenced = asyncio.Semaphore(0)
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        end = data.index(b"\0", 12) + 5
        question, kind = data[12:end], data[end - 4 : end - 2]
        if question.startswith(b"\x05hangs"):
            self.silenced.release()
            return
        found = question.startswith(b"\x04good")
        answers = found and kind == b"\0\x01"
        flags = b"\x81\x80" if found else b"\x81\x83"
        record = b"\xc0\x0c\0\x01\0\x01\0\0\0\x01\0\x04" + socket.inet_aton(PUBLIC)
        reply = data[:2] + flags + b"\0\x01" + (b"\0\x01" if answers else b"\0\0") + b"\0\0\0\0"
        assert self.transport is not None
        self.transport.sendto(reply + question + (record if answers else b""), addr)


@pytest.fixture
async def name_server() -> AsyncIterator[tuple[NameServer, AresLookup]]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        NameServer, ("127.0.0.1", 0)
    )
    port = transport.get_extra_info("sockname")[1]
    lookup = AresLookup([f"127.0.0.1:{port}"])
    yield server, lookup
    await lookup.close()
    transport.close()


async def test_c_ares_finds_a_name(name_server: tuple[NameServer, AresLookup]) -> None:
    _, lookup = name_server
    assert list(await lookup("good.example")) == [PUBLIC]
    with pytest.raises(OSError, match="failed"):
        await lookup("bad.example")


async def test_names_that_never_answer_delay_nobody(
    name_server: tuple[NameServer, AresLookup],
) -> None:
    server, lookup = name_server
    resolver = PolicyResolver(lookup, Policy())
    hanging: list[asyncio.Future[list[ResolveResult]]] = []
    while len(hanging) < 1_000:
        name = f"hangs.n{len(hanging)}.example"
        hanging.append(asyncio.ensure_future(resolver.resolve(name)))
        for _ in ("A", "AAAA"):
            await server.silenced.acquire()
    found = await resolver.resolve("good.example")
    assert [result["host"] for result in found] == [PUBLIC]
    assert not hanging[-1].done()
    await resolver.close()
    await asyncio.gather(*hanging, return_exceptions=True)


# Answers


@pytest.mark.parametrize(
    ("script", "code"),
    [
        pytest.param(never_answers, "timeout", id="never-any-byte"),
        pytest.param(
            replies_for_ever(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", b"x", 0.02),
            "timeout",
            id="drip",
        ),
        pytest.param(
            replies_for_ever(b"HTTP/1.1 200 OK\r\n", b"x", 0.02), "timeout", id="drip-in-the-head"
        ),
        pytest.param(
            replies_for_ever(b"", b"HTTP/1.1 100 C\r\n\r\n", 0.02), "timeout", id="dripping-1xx"
        ),
        pytest.param(
            replies_for_ever(b"", b"HTTP/1.1 100 C\r\n\r\n" * 500), "malformed", id="endless-1xx"
        ),
        pytest.param(
            replies_for_ever(CHUNKED + b"0\r\n", b"x: y\r\n" * 99), "malformed", id="trailers"
        ),
        pytest.param(
            replies_for_ever(CHUNKED + b"1;", b"x=y;" * 999), "malformed", id="chunk-extension"
        ),
        pytest.param(
            replies_for_ever(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"), "malformed", id="header-bomb"
        ),
        pytest.param(
            replies_for_ever(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 999), "malformed", id="long-header"
        ),
        pytest.param(replies_for_ever(b"HTTP/1.1 200 ", b"y" * 999), "malformed", id="long-reason"),
        pytest.param(replies_and_closes(b"hello\r\n"), "malformed", id="http-0.9"),
        pytest.param(replies(b"HTTP/2 200 OK\r\n\r\n"), "malformed", id="not-http-1"),
        pytest.param(replies(b"\x16\x03\x01\x00\x05"), "malformed", id="tls-record"),
        pytest.param(
            replies(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"), "malformed", id="bad-length"
        ),
        pytest.param(replies_and_closes(b""), "reset", id="closes-at-once"),
        pytest.param(
            replies_and_closes(b"HTTP/1.1 200 OK\r\nx:"), "reset", id="closes-in-the-head"
        ),
        pytest.param(
            replies_and_closes(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhalf"),
            "reset",
            id="closes-half-way",
        ),
        pytest.param(
            replies_and_closes(CHUNKED + b"2\r\nok\r\n"),
            "reset",
            id="closes-between-chunks",
        ),
        pytest.param(
            replies(CHUNKED + b"zz\r\n"),
            "malformed",
            id="bad-chunk",
        ),
        pytest.param(resets, "reset", id="resets"),
    ],
)
async def test_no_complete_answer(
    script: Script, code: str, start_receiver: StartReceiver, loopback: Policy
) -> None:
    receiver = await start_receiver(script)
    async with transport_for(loopback, deadlines=BRIEF) as transport:
        assert await fails_with(transport, f"http://127.0.0.1:{receiver.port}/") == code
        healthy = await start_receiver(replies(OK))
        response = await post(transport, f"http://127.0.0.1:{healthy.port}/")
    assert response.status_code == 200


FOR_EVER = 1_000.0


@pytest.mark.parametrize(
    ("deadlines", "scheme", "script", "code"),
    [
        pytest.param(
            Deadlines(dns=FOR_EVER, connect=0.1, first_byte=FOR_EVER, total=FOR_EVER),
            "https",
            never_answers,
            "connect",
            id="connect",
        ),
        pytest.param(
            Deadlines(connect=FOR_EVER, first_byte=0.1, total=FOR_EVER),
            "http",
            never_answers,
            "timeout",
            id="first-byte",
        ),
        pytest.param(
            Deadlines(connect=FOR_EVER, first_byte=FOR_EVER, total=0.1),
            "http",
            replies_for_ever(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", b"x", 0.02),
            "timeout",
            id="total",
        ),
    ],
)
async def test_each_deadline_holds_by_itself(
    deadlines: Deadlines,
    scheme: str,
    script: Script,
    code: str,
    start_receiver: StartReceiver,
    loopback: Policy,
) -> None:
    receiver = await start_receiver(script)
    async with transport_for(loopback, deadlines=deadlines) as transport:
        assert await fails_with(transport, f"{scheme}://127.0.0.1:{receiver.port}/") == code


async def test_a_deadline_ends_with_its_part(
    start_receiver: StartReceiver, loopback: Policy
) -> None:
    async def script(writer: asyncio.StreamWriter) -> None:
        for piece in (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", b"ok"):
            await asyncio.sleep(0.3)
            writer.write(piece)

    receiver = await start_receiver(script)
    deadlines = Deadlines(dns=0.1, connect=0.1, first_byte=0.5, total=FOR_EVER)
    async with transport_for(loopback, deadlines=deadlines) as transport:
        response = await post(transport, f"http://127.0.0.1:{receiver.port}/")
    assert response.status_code == 200


async def test_waiting_for_a_free_connection_has_a_deadline(
    start_receiver: StartReceiver, loopback: Policy
) -> None:
    receiver = await start_receiver(never_answers)
    deadlines = Deadlines(dns=0.1, connect=0.1, first_byte=0.3, total=FOR_EVER)
    async with transport_for(loopback, deadlines=deadlines, connections=1) as transport:
        url = f"http://127.0.0.1:{receiver.port}/"
        first, second = await asyncio.gather(fails_with(transport, url), fails_with(transport, url))
    assert (first, second) == ("timeout", "connect")


async def test_nobody_listens(loopback: Policy) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with transport_for(loopback) as transport:
            port = unused.getsockname()[1]
            assert await fails_with(transport, f"http://127.0.0.1:{port}/") == "connect"


async def test_plain_http_behind_https_is_a_tls_failure(loopback: Policy) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, transport_for(loopback) as transport:
        assert await fails_with(transport, f"https://127.0.0.1:{port}/") == "tls"


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 4_096, id="until-closed"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 999_999, id="in-large-pieces"),
        pytest.param(CHUNKED, b"1\r\nx\r\n" * 999, id="in-tiny-chunks"),
    ],
)
async def test_a_body_is_read_up_to_the_limit_and_the_connection_closed(
    head: bytes, piece: bytes, start_receiver: StartReceiver, loopback: Policy
) -> None:
    receiver = await start_receiver(replies_for_ever(head, piece))
    async with transport_for(loopback) as transport:
        response = await post(transport, f"http://127.0.0.1:{receiver.port}/")
        answer = response.stream
        assert isinstance(answer, Answer)
        assert (answer.body, answer.truncated) == (b"x" * MAX_ANSWER, True)
        await receiver.hung_up.wait()


@pytest.mark.parametrize("size", [0, 1, MAX_ANSWER - 1, MAX_ANSWER])
async def test_a_body_within_the_limit_is_whole_and_the_connection_kept(
    size: int, start_receiver: StartReceiver, loopback: Policy
) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size
    receiver = await start_receiver(replies(head, b"x" * size))
    async with transport_for(loopback) as transport:
        for _ in range(3):
            response = await post(transport, f"http://127.0.0.1:{receiver.port}/")
            answer = response.stream
            assert isinstance(answer, Answer)
            assert (answer.body, answer.truncated) == (b"x" * size, False)
    assert receiver.connections == 1


async def test_an_answer_to_nothing_ends_an_idle_connection(
    start_receiver: StartReceiver, loopback: Policy
) -> None:
    idle = asyncio.Event()

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await idle.wait()
        writer.write(OK)

    receiver = await start_receiver(script)
    async with transport_for(loopback) as transport:
        await post(transport, f"http://127.0.0.1:{receiver.port}/")
        idle.set()
        async with asyncio.timeout(KEEP_ALIVE / 2):
            await receiver.hung_up.wait()


async def test_a_compressed_bomb_stays_compressed(
    start_receiver: StartReceiver, loopback: Policy
) -> None:
    bomb = zlib.compress(bytes(20_000_000), 9, 31)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb)
    receiver = await start_receiver(replies(head, bomb))
    async with transport_for(loopback) as transport:
        response = await post(transport, f"http://127.0.0.1:{receiver.port}/")
    answer = response.stream
    assert isinstance(answer, Answer)
    assert (answer.body, answer.truncated) == (bomb[:MAX_ANSWER], True)


async def test_an_answer_after_informational_ones_counts(
    start_receiver: StartReceiver, loopback: Policy
) -> None:
    receiver = await start_receiver(replies(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 3, OK))
    async with transport_for(loopback) as transport:
        response = await post(transport, f"http://127.0.0.1:{receiver.port}/")
    assert response.status_code == 200


async def test_no_cookie_comes_back(start_receiver: StartReceiver, loopback: Policy) -> None:
    receiver = await start_receiver(
        replies(OK.replace(b"\r\n\r\n", b"\r\nset-cookie: a=b\r\n\r\n"))
    )
    async with transport_for(loopback) as transport:
        for _ in range(2):
            await post(transport, f"http://localhost:{receiver.port}/")
    assert [b"cookie" in head.lower() for head, _ in receiver.requests] == [False, False]


async def test_no_redirect_is_followed(start_receiver: StartReceiver, loopback: Policy) -> None:
    target = await start_receiver(replies(OK))
    location = b"http://127.0.0.1:%d/" % target.port
    receiver = await start_receiver(
        replies(b"HTTP/1.1 307 Moved\r\nlocation: %b\r\ncontent-length: 0\r\n\r\n" % location)
    )
    async with transport_for(loopback) as transport:
        response = await post(transport, f"http://127.0.0.1:{receiver.port}/")
    assert response.status_code == 307
    assert target.connections == 0


async def test_proxies_and_credentials_of_the_environment_are_ignored(
    start_receiver: StartReceiver,
    loopback: Policy,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    proxy = await start_receiver(replies(OK))
    receiver = await start_receiver(replies(OK))
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("machine 127.0.0.1 login u password p\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    async with transport_for(loopback) as transport:
        await post(transport, f"http://127.0.0.1:{receiver.port}/")
    assert (proxy.connections, receiver.connections) == (0, 1)
    assert b"authorization" not in receiver.requests[0][0].lower()


async def test_only_the_request_s_headers_are_sent(
    start_receiver: StartReceiver, loopback: Policy
) -> None:
    receiver = await start_receiver(replies(OK))
    url = f"http://127.0.0.1:{receiver.port}"
    request = httpx.Request(
        "POST", url, headers={"X-One": "1"}, content=b"{}", extensions={"target": b"/a/../%7e?q='"}
    )
    async with transport_for(loopback) as transport:
        await transport.handle_async_request(request)
    head, body = receiver.requests[0]
    line, *headers = head.decode().split("\r\n")[:-2]
    assert line == "POST /a/../%7e?q=' HTTP/1.1"
    assert sorted(name.partition(":")[0].lower() for name in headers) == [
        "content-length",
        "host",
        "x-one",
    ]
    assert body == b"{}"


# Connections


async def test_times_tell_a_new_connection_from_a_kept_one(
    start_receiver: StartReceiver, loopback: Policy
) -> None:
    receiver = await start_receiver(replies(OK))
    async with transport_for(loopback) as transport:
        url = f"http://127.0.0.1:{receiver.port}/"
        first = (await post(transport, url)).extensions
        second = (await post(transport, url)).extensions
    assert 0 < first["connect"] <= first["first_byte"]
    assert second["connect"] is None
    assert second["first_byte"] > 0


async def test_idle_connections_are_kept_up_to_the_bound(
    start_receiver: StartReceiver, loopback: Policy
) -> None:
    receivers = [await start_receiver(replies(OK)) for _ in range(4)]
    async with transport_for(loopback, connections=2) as transport:
        for receiver in receivers:
            await post(transport, f"http://127.0.0.1:{receiver.port}/")
        for receiver in receivers[2:]:
            await receiver.hung_up.wait()
        for receiver in receivers:
            await post(transport, f"http://127.0.0.1:{receiver.port}/")
    assert [receiver.connections for receiver in receivers] == [1, 1, 2, 2]


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_closed_connections_do_not_count(
    new_loop: Callable[[], asyncio.AbstractEventLoop], loopback: Policy
) -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while head := await reader.readuntil(b"{}"):
            closes = b"/close" in head
            writer.write(OK.replace(b"OK\r\n", b"OK\r\nconnection: close\r\n") if closes else OK)
            await writer.drain()
            if closes or b"/last" in head:
                break
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, transport_for(loopback, connections=2) as transport:
            for path in ("/close", "/close", "/close", "/kept", "/kept", "/last"):
                await post(transport, url + path)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())
    assert connections == 4


async def test_cancellation_passes_and_the_connection_goes(
    start_receiver: StartReceiver, loopback: Policy
) -> None:
    asked = asyncio.Event()

    async def script(writer: asyncio.StreamWriter) -> None:
        asked.set()
        await writer.wait_closed()

    receiver = await start_receiver(script)
    async with transport_for(loopback) as transport:
        task = asyncio.ensure_future(post(transport, f"http://127.0.0.1:{receiver.port}/"))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        healthy = await start_receiver(replies(OK))
        await post(transport, f"http://127.0.0.1:{healthy.port}/")


async def test_a_closed_transport_says_so(loopback: Policy) -> None:
    async with transport_for(loopback) as transport:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        await post(transport, "http://127.0.0.1:1/")
