"""What a hostile answer may cost, and what the transport keeps of a friendly one."""

from __future__ import annotations

import asyncio
import socket
import zlib
from typing import TYPE_CHECKING

import httpx
import pytest

from delivery.connections import KEEP_ALIVE
from delivery.deadlines import Deadlines
from delivery.egress import Policy
from delivery.transport import MAX_ANSWER, Answer
from tests.delivery.sending import (
    CHUNKED,
    OK,
    fails_with,
    never_answers,
    post,
    replies,
    replies_and_closes,
    replies_for_ever,
    resets,
    transport_for,
)

if TYPE_CHECKING:
    from tests.delivery.conftest import Script, StartReceiver


BRIEF = Deadlines(dns=0.3, connect=0.3, first_byte=0.3, total=0.5)


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
