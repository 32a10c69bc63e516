"""The second gate: what settings open and close, and what the machine itself is."""

from __future__ import annotations

import json
from ipaddress import ip_network

import pytest

from config.settings import SettingsError, load_settings
from delivery.configure import policy_of, proxy_of
from delivery.egress import Ground, Policy, check_address, parse_destination
from delivery.errors import DestinationDenied, DestinationRefused
from delivery.guard import Guard, is_own_address
from delivery.proxy import Proxy

PUBLIC = "93.184.215.14"
OPEN = Policy(
    allow_networks=(ip_network("10.20.0.0/16"), ip_network("fd12::/32")),
    deny_networks=(ip_network("10.20.9.0/24"), ip_network("93.184.215.0/24")),
    allow_hosts=frozenset({"billing", "hooks.corp.example", ".svc.example"}),
    deny_hosts=frozenset({"bad.svc.example", ".bad.example"}),
    own_hosts=frozenset({"gateway.example", "8.8.4.4"}),
)


@pytest.mark.parametrize(
    ("address", "host", "ground"),
    [
        ("8.8.8.8", "", "public"),
        ("10.20.0.1", "", "opened"),
        ("10.20.0.1", "any.example", "opened"),
        ("fd12::1", "", "opened"),
        ("10.21.0.1", "", None),
        ("fd13::1", "", None),
        # denying wins
        ("10.20.9.1", "", None),
        ("10.20.9.1", "billing", None),
        (PUBLIC, "", None),
        (PUBLIC, "hooks.corp.example", None),
        ("8.8.8.8", "bad.svc.example", None),
        ("8.8.8.8", "x.bad.example", None),
        ("8.8.8.8", "bad.example", "public"),
        # what an allowed name may stand for
        ("192.168.1.1", "billing", "opened"),
        ("172.16.0.1", "a.svc.example", "opened"),
        ("100.64.0.1", "a.b.svc.example", "opened"),
        ("127.0.0.1", "billing", "opened"),
        ("::1", "billing", "opened"),
        ("fc00::1", "billing", "opened"),
        ("8.8.8.8", "billing", "opened"),
        ("192.168.1.1", "svc.example", None),
        ("192.168.1.1", "billing.example", None),
        ("192.168.1.1", "xhooks.corp.example", None),
        ("192.168.1.1", "192.168.1.1", None),
        # and what not
        ("169.254.169.254", "billing", None),
        ("100.100.100.200", "billing", None),
        ("fd00:ec2::254", "billing", None),
        ("168.63.129.16", "billing", None),
        ("0.0.0.0", "billing", None),
        ("224.0.0.1", "billing", None),
        ("::ffff:10.20.0.1", "billing", None),
        ("64:ff9b::a14:1", "billing", None),
        ("fe80::1%eth0", "billing", None),
        # the gateway itself
        ("8.8.4.4", "", None),
        ("8.8.4.4", "other.example", None),
        ("8.8.4.4", "billing", "opened"),
    ],
)
def test_what_settings_open_and_close(address: str, host: str, ground: Ground | None) -> None:
    try:
        found = check_address(address, OPEN, host=host)
    except DestinationDenied:
        found = None
    assert found == ground


@pytest.mark.parametrize(
    ("url", "is_taken"),
    [
        ("https://billing/", True),
        ("https://BILLING/", True),
        ("https://a.svc.example/", True),
        ("https://10.20.0.1/", True),
        ("https://[fd12::1]/", True),
        ("https://billing:22/", False),
        ("http://billing/", False),
        ("https://other/", False),
        ("https://bad.svc.example/", False),
        ("https://x.bad.example/", False),
        ("https://10.20.9.1/", False),
        ("https://93.184.215.14/", False),
        ("https://gateway.example/", False),
        ("https://GATEWAY.example:8443/", False),
        ("https://8.8.4.4/", False),
        ("https://localhost/", False),
        ("https://billing./", False),
    ],
)
def test_what_is_taken_at_submit(url: str, is_taken: bool) -> None:
    if is_taken:
        parse_destination(url, OPEN)
        return
    with pytest.raises(DestinationRefused):
        parse_destination(url, OPEN)


@pytest.mark.parametrize("spelling", ["127.0.0.1", "127.9.9.9", "localhost", "[::1]"])
def test_a_development_gateway_does_not_call_itself(spelling: str) -> None:
    policy = Policy(
        allow_http=True, allow_loopback=True, ports=None, own_ports=frozenset({8080, 9000})
    )
    parse_destination(f"http://{spelling}:8081/", policy)
    for port in (8080, 9000):
        with pytest.raises(DestinationRefused):
            parse_destination(f"http://{spelling}:{port}/", policy)
    with pytest.raises(DestinationDenied):
        Guard(policy=policy)("h.example", "127.0.0.1", 8080)


def test_the_machine_knows_its_own_addresses() -> None:
    assert is_own_address("127.0.0.1")
    assert not is_own_address(PUBLIC)
    assert not is_own_address("2606:4700::1")


def test_the_machines_own_addresses_are_closed_unless_a_setting_opens_them() -> None:
    machine = "198.41.0.4"
    allowing = Policy(
        allow_hosts=frozenset({"mine.example"}), allow_networks=(ip_network("8.8.8.8/32"),)
    )
    guard = Guard(policy=allowing, is_own=lambda address: address in {machine, "8.8.8.8"})
    guard("mine.example", machine, 443)
    guard("h.example", "8.8.8.8", 443)
    guard("h.example", PUBLIC, 443)
    with pytest.raises(DestinationDenied):
        guard("h.example", machine, 443)
    with pytest.raises(DestinationDenied):
        guard(machine, machine, 443)


PRODUCTION = {
    "GATEWAY_PUBLIC_URL": "https://Gateway.Example",
    "GATEWAY_STORE_URL": "redis://store",
    "GATEWAY_BROKER_URL": "redis://broker",
    "GATEWAY_ARTIFACTS_URL": "s3://bucket",
    "GATEWAY_SEALING_KEYS": "one:" + "c3Nz" * 10 + "c3M=",
}


def test_the_rules_are_settings() -> None:
    settings = load_settings(
        PRODUCTION
        | {
            "GATEWAY_API_HOST": "2001:DB8::1",
            "GATEWAY_DELIVERY_ALLOW_NETWORKS": '["10.20.0.0/16", "fd12::/32"]',
            "GATEWAY_DELIVERY_DENY_NETWORKS": '["1.2.3.4"]',
            "GATEWAY_DELIVERY_ALLOW_HOSTS": '["Billing", ".svc.example"]',
            "GATEWAY_DELIVERY_DENY_HOSTS": '["bad.svc.example"]',
            "GATEWAY_DELIVERY_EGRESS_PROXY": "http://us%65r:p%40ss@proxy:3128",
        }
    )
    policy = policy_of(settings)
    assert policy == Policy(
        allow_networks=(ip_network("10.20.0.0/16"), ip_network("fd12::/32")),
        deny_networks=(ip_network("1.2.3.4/32"),),
        allow_hosts=frozenset({"billing", ".svc.example"}),
        deny_hosts=frozenset({"bad.svc.example"}),
        own_hosts=frozenset({"gateway.example", "2001:db8::1"}),
        own_ports=frozenset({443, 8080}),
    )
    proxy = proxy_of(settings)
    assert proxy == Proxy(host="proxy", port=3128, authorization="Basic dXNlcjpwQHNz")
    assert "dXNl" not in repr(proxy)
    assert "p%40ss" not in repr(settings)
    assert proxy_of(load_settings(PRODUCTION)) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("ALLOW_HOSTS", value)
            for value in ("*", "*.example.com", "a..b", "-a.example", "a b", "", ".", "10.0.0.1")
        ),
        *(("DENY_HOSTS", value) for value in ("https://h.example", "h.example:443", "h.example.")),
        *(("ALLOW_NETWORKS", value) for value in ("10.0.0.1/8", "10.0.0.0/33", "h.example", "")),
        *(("DENY_NETWORKS", value) for value in ("::/129", "fe80::1%eth0/64")),
    ],
)
def test_a_rule_that_is_none_stops_the_start(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"delivery\.{name.lower()}\.0: must be"):
        load_settings(PRODUCTION | {f"GATEWAY_DELIVERY_{name}": json.dumps([value])})


@pytest.mark.parametrize(
    "proxy",
    [
        "proxy:3128",
        "https://proxy:3128",
        "http://proxy",
        "http://proxy:0",
        "http://proxy:65536",
        "http://user:pa ss@proxy:3128",
        "http://proxy:3128/path",
        "http://proxy:3128?x",
        "socks5://proxy:1080",
        "http://p\r\nx:3128",
    ],
)
def test_a_proxy_that_is_none_stops_the_start_unseen(proxy: str) -> None:
    with pytest.raises(SettingsError, match=r"delivery\.egress_proxy: must be") as caught:
        load_settings(PRODUCTION | {"GATEWAY_DELIVERY_EGRESS_PROXY": proxy})
    assert "pa ss" not in str(caught.value)
