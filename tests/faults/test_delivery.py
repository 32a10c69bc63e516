"""The delivery process dies before it sends, before it hears the answer, and while it records."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tests.faults.records import FAULTY
from tests.processes import eventually
from tests.running import Gateway, running

SETTINGS = {
    **FAULTY,
    "GATEWAY_DELIVERY_DNS_TIMEOUT_SECONDS": "1",
    "GATEWAY_DELIVERY_CONNECT_TIMEOUT_SECONDS": "5",
    "GATEWAY_DELIVERY_TOTAL_TIMEOUT_SECONDS": "5",
    "GATEWAY_DELIVERY_FIRST_BYTE_TIMEOUT_SECONDS": "5",
    "GATEWAY_DELIVERY_LEASE_SECONDS": "15",
}
PATIENCE = 60.0


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose deliveries are missed soon when their process is gone."""
    with running(tmp_path_factory.mktemp("delivery") / "data", SETTINGS) as started:
        yield started


class Held:
    """A receiver that says when it was asked, and answers when it is let."""

    def __init__(self, server: HTTPServer, path: str) -> None:
        self.url = server.url_for(path)
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.ids: list[str] = []
        server.expect_request(path, method="POST").respond_with_handler(self.take)

    def take(self, request: Request) -> Response:
        self.ids.append(request.headers["webhook-id"])
        self.asked.set()
        self.go_on.wait(PATIENCE)
        return Response(status=200)


class Unreached:
    """A receiver that lets nobody in: its queue of connections is full, so the next ones wait."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        self.address = self._listener.getsockname()
        self.ids: list[str] = []
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(self.address)

    def open(self) -> None:
        """Let everybody in, and answer."""
        ids = self.ids

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                ids.append(self.headers["webhook-id"])
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ARG002
                return

        server = ThreadingHTTPServer(self.address, Handler, bind_and_activate=False)
        server.daemon_threads = True
        server.socket.close()
        server.socket = self._listener
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(server.shutdown)


@contextmanager
def unreached() -> Iterator[Unreached]:
    with ExitStack() as stack:
        yield Unreached(stack)


def owe(gateway: Gateway, url: str) -> str:
    """Have a job end that owes a callback to `url`; return its identifier."""
    job = gateway.submit(type="demo.echo", input={"payload": 1}, callbackUrl=url)
    return str(gateway.ended(job["jobId"])["jobId"])


def delivery_of(gateway: Gateway, job: str) -> dict[str, Any]:
    [delivery] = gateway.client.get(f"/v1/jobs/{job}/deliveries").json()["items"]
    return dict(delivery)


def test_a_callback_that_was_not_sent_is_sent_once_and_one_under_way_again(
    gateway: Gateway, httpserver: HTTPServer
) -> None:
    held = Held(httpserver, "/held")
    with unreached() as closed:
        unsent = owe(gateway, f"http://127.0.0.1:{closed.address[1]}/hook")
        sent = owe(gateway, held.url)
        assert held.asked.wait(PATIENCE)
        assert eventually(lambda: delivery_of(gateway, unsent)["attemptCount"] == 1)
        gateway.kill("delivery")
        held.go_on.set()
        closed.open()
        for job, ids in ((unsent, closed.ids), (sent, held.ids)):
            gateway.called_back(job, patience=PATIENCE)
            delivery = delivery_of(gateway, job)
            outcomes = [attempt["outcome"] for attempt in delivery["attempts"]]
            assert outcomes == ["lost", "delivered"]
            assert set(ids) == {delivery["id"]}
        assert (len(closed.ids), len(held.ids)) == (1, 2)


def test_a_process_that_dies_while_it_records_leaves_one_story(
    gateway: Gateway, httpserver: HTTPServer
) -> None:
    held = Held(httpserver, "/recorded")
    job = owe(gateway, held.url)
    assert held.asked.wait(PATIENCE)
    with gateway.paused("store"):
        held.go_on.set()
        # The answer reaches a process that can record nothing, or not even that far.
        gateway.kill("delivery")
    gateway.called_back(job, patience=PATIENCE)
    delivery = delivery_of(gateway, job)
    outcomes = [attempt["outcome"] for attempt in delivery["attempts"]]
    assert outcomes in (["delivered"], ["lost", "delivered"])
    assert held.ids == [delivery["id"]] * len(outcomes)
