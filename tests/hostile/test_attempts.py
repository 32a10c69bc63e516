"""The rows of redirects, the environment, TLS and Retry-After: through a delivery process.

A receiver on loopback stands for the public address that its name has.
"""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from pathlib import Path

import pytest
from cryptography import x509

from config.clock import SECOND
from config.store import Store
from delivery.egress import Policy
from delivery.models import Retry
from tests.delivery.authority import Authority
from tests.delivery.conftest import Script, StartReceiver
from tests.hostile.test_dns import PUBLIC, Network, process


def says(*fields: str, status: int = 200) -> Script:
    """Return a script that answers with `fields` and no body."""
    lines = [f"HTTP/1.1 {status} X", "content-length: 0", *fields, "", ""]

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join(lines).encode())

    return script


METADATA = "http://169.254.169.254/latest/meta-data"


@pytest.mark.parametrize(
    ("status", "location"),
    [
        *((307, location) for location in (METADATA, "https://127.0.0.1/", "//[::1]/", "/")),
        *((status, METADATA) for status in (300, 301, 302, 303, 308, 399)),
    ],
)
async def test_redirect_is_a_failed_attempt_and_not_followed(
    status: int, location: str, store: Store, start_receiver: StartReceiver
) -> None:
    receiver = await start_receiver(says(f"location: {location}", status=status))
    network = Network({"h.example": [[PUBLIC]]}, reach=receiver.port)
    async with process(store, network, Policy(allow_http=True, ports=None)) as running:
        delivery = await running.owe("http://h.example/hook")
        found = await running.attempted(delivery)
    assert found.state == "pending"
    record = [(each["outcome"], each["statusCode"]) for each in found.history]
    assert record == [("rejected", status)]
    assert (network.looked_up, network.dialled) == (["h.example"], [PUBLIC])
    assert receiver.connections == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_environment_proxies_are_ignored(
    scheme: str,
    store: Store,
    start_receiver: StartReceiver,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)
    tls = authority.server(x509.DNSName("h.example")) if scheme == "https" else None
    receiver, proxy = await start_receiver(says(), tls), await start_receiver(says())
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    network = Network({"h.example": [[PUBLIC]]}, reach=receiver.port)
    policy = Policy(allow_http=True, ports=None)
    async with process(store, network, policy, ssl_context=authority.client()) as running:
        delivery = await running.owe(f"{scheme}://h.example/hook")
        assert await running.ended(delivery) == ("delivered", "")
    assert (receiver.connections, proxy.connections) == (1, 0)
    [(head, _)] = receiver.requests
    assert head.startswith(b"POST /hook HTTP/1.1\r\n")


CERTIFICATES: dict[str, tuple[str, int, bool, bool]] = {
    # Name, days that it is good for yet, whether it signs for itself, whether it is taken.
    "good": ("h.example", 30, False, True),
    "another name": ("other.example", 30, False, False),
    "a name above": ("example", 30, False, False),
    "a name below": ("a.h.example", 30, False, False),
    "any name": ("*", 30, False, False),
    "the dialled address": (PUBLIC, 30, False, False),
    "expired": ("h.example", -1, False, False),
    "self-signed": ("h.example", 30, True, False),
}


@pytest.mark.parametrize(
    ("name", "days", "self_signed", "is_taken"), CERTIFICATES.values(), ids=CERTIFICATES
)
async def test_tls_of_a_bad_certificate_is_a_failed_attempt(
    name: str,
    days: int,
    self_signed: bool,
    is_taken: bool,
    store: Store,
    start_receiver: StartReceiver,
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)
    tls = authority.server(x509.DNSName(name), days=days, self_signed=self_signed)
    receiver = await start_receiver(says(), tls)
    network = Network({"h.example": [[PUBLIC]]}, reach=receiver.port)
    async with process(store, network, ssl_context=authority.client()) as running:
        found = await running.attempted(await running.owe("https://h.example/hook"))
    outcome = ("delivered", "delivered") if is_taken else ("pending", "tls")
    assert (found.state, found.history[-1]["outcome"]) == outcome
    assert len(receiver.requests) == is_taken
    assert network.dialled == [PUBLIC]


GAP = 60
DAY = 24 * 3600

RETRY_AFTER: dict[str, tuple[str, str]] = {
    "-1": ("-1", "ignored"),
    "nan": ("nan", "ignored"),
    "99999999": ("99999999", "clamped"),
    "a date in the past": (formatdate(0, usegmt=True), "the schedule"),
    "a date far away": ("Fri, 31 Dec 9999 23:59:59 GMT", "clamped"),
    "a thousand digits": ("9" * 1_000, "clamped"),
    "0": ("0", "the schedule"),
    "infinity": ("inf", "ignored"),
    "an exponent": ("1e9", "ignored"),
    "hexadecimal": ("0x15180", "ignored"),
    "a list": ("99999999, 1", "ignored"),
    "a date that is none": ("Sun, 32 Nov 2099 08:49:37 GMT", "ignored"),
    "nothing": ("", "ignored"),
}


@pytest.mark.parametrize("status", [404, 429, 503])
@pytest.mark.parametrize(("said", "becomes"), RETRY_AFTER.values(), ids=RETRY_AFTER)
async def test_retry_after_is_ignored_or_clamped(
    said: str, becomes: str, status: int, store: Store, start_receiver: StartReceiver
) -> None:
    receiver = await start_receiver(says(f"retry-after: {said}", status=status))
    network = Network({"h.example": [[PUBLIC]]}, reach=receiver.port)
    policy = Policy(allow_http=True, ports=None)
    async with process(store, network, policy, gaps=(0.0, GAP)) as running:
        await running.attempted(await running.owe("http://h.example/hook"))
        [attempt] = running.deliveries.ended
    verdict = attempt.decision.verdict
    assert isinstance(verdict, Retry)
    if becomes == "clamped":
        assert verdict.delay == DAY * SECOND
    else:
        assert GAP * SECOND <= verdict.delay < 2 * GAP * SECOND
    # A 404 that says nothing of when is a failure like others.
    is_failure = status == 404 and becomes == "ignored"
    assert attempt.outcome == ("rejected" if is_failure else "throttled")


@pytest.mark.parametrize("host", ["xn--fa-hia.de", "h.example"])
@pytest.mark.parametrize(
    "target", ["/a%0d%0aHost:%20evil.example%0d%0a%0d%0ab", "/%00/%2e%2e/%7e?c=%0D%0A", "/a/../b"]
)
async def test_accepted_escapes_are_sent_byte_for_byte(
    host: str, target: str, store: Store, start_receiver: StartReceiver
) -> None:
    receiver = await start_receiver(says())
    network = Network({host: [[PUBLIC]]}, reach=receiver.port)
    async with process(store, network, Policy(allow_http=True, ports=None)) as running:
        delivery = await running.owe(f"http://{host}{target}")
        assert await running.ended(delivery) == ("delivered", "")
    [(head, _)] = receiver.requests
    assert head.startswith(f"POST {target} HTTP/1.1\r\n".encode())
    assert [line for line in head.lower().split(b"\r\n") if line.startswith(b"host:")] == [
        f"host: {host}".encode()
    ]
    assert network.looked_up == [host]
