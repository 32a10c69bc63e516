"""Egress: hostile URLs and headers are refused, and no special address is ever allowed."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from delivery.egress import Policy, check_address, parse_destination
from delivery.errors import DestinationDenied, DestinationRefused, HeaderRefused
from delivery.headers import validate_custom_headers

PRODUCTION = Policy()
DEVELOPMENT = Policy(allow_http=True, allow_loopback=True, ports=None)
POLICIES = st.sampled_from([PRODUCTION, DEVELOPMENT])

REFUSED = {
    # scheme and shape
    "ftp": ("ftp://h.example/", "scheme_not_allowed"),
    "file": ("file:///etc/passwd", "scheme_not_allowed"),
    "gopher": ("gopher://127.0.0.1:6379/_x", "scheme_not_allowed"),
    "javascript": ("javascript://h.example/%0aalert(1)", "scheme_not_allowed"),
    "plain-http": ("http://h.example/", "scheme_not_allowed"),
    "no-scheme": ("//h.example/", "malformed_url"),
    "relative": ("h.example/hook", "malformed_url"),
    "empty": ("", "malformed_url"),
    "scheme-only": ("https:", "malformed_url"),
    "one-slash": ("https:/h.example/", "malformed_url"),
    "three-slashes": ("https:///127.0.0.1/", "malformed_url"),
    "no-host": ("https://", "malformed_url"),
    "port-without-host": ("https://:443/", "malformed_url"),
    "tab-in-scheme": ("ht\ttps://h.example/", "malformed_url"),
    "leading-space": (" https://h.example/", "malformed_url"),
    "trailing-newline": ("https://h.example/\n", "malformed_url"),
    # user information
    "user-and-password": ("https://u:p@h.example/", "userinfo_not_allowed"),
    "name-before-address": ("https://h.example@127.0.0.1/", "userinfo_not_allowed"),
    "backslash-and-at": ("https://h.example\\@127.0.0.1/", "userinfo_not_allowed"),
    "empty-user": ("https://@h.example/", "userinfo_not_allowed"),
    "backslash": ("https://h.example\\x/", "host_not_allowed"),
    # numeric hosts
    "decimal": ("https://2130706433/", "host_not_allowed"),
    "hexadecimal": ("https://0x7f000001/", "host_not_allowed"),
    "hexadecimal-part": ("https://127.0.0.0x1/", "host_not_allowed"),
    "bare-0x": ("https://127.0.0.0x/", "host_not_allowed"),
    "octal": ("https://0177.0.0.1/", "host_not_allowed"),
    "two-parts": ("https://127.1/", "host_not_allowed"),
    "five-parts": ("https://1.2.3.4.5/", "host_not_allowed"),
    "name-with-a-number-last": ("https://h.example.1/", "host_not_allowed"),
    "256": ("https://8.8.8.256/", "host_not_allowed"),
    # addresses
    "loopback": ("https://127.0.0.1/", "host_not_allowed"),
    "private": ("https://10.0.0.1/", "host_not_allowed"),
    "alibaba-metadata": ("https://100.100.100.200/", "host_not_allowed"),
    "metadata": ("https://169.254.169.254/latest/meta-data", "host_not_allowed"),
    "azure-host": ("https://168.63.129.16/", "host_not_allowed"),
    "loopback-v6": ("https://[::1]/", "host_not_allowed"),
    "mapped": ("https://[::ffff:7f00:1]/", "host_not_allowed"),
    "mapped-dotted": ("https://[::ffff:127.0.0.1]/", "host_not_allowed"),
    "compatible": ("https://[::127.0.0.1]/", "host_not_allowed"),
    "scoped": ("https://[fe80::1%25eth0]/", "host_not_allowed"),
    "scoped-public": ("https://[2606:4700::1%25eth0]/", "host_not_allowed"),
    "nat64": ("https://[64:ff9b::a9fe:a9fe]/", "host_not_allowed"),
    "6to4": ("https://[2002:7f00:1::]/", "host_not_allowed"),
    "teredo": ("https://[2001:0:1::1]/", "host_not_allowed"),
    "aws-metadata-v6": ("https://[fd00:ec2::254]/", "host_not_allowed"),
    "site-local": ("https://[fec0::1]/", "host_not_allowed"),
    "future-version": ("https://[v1.a]/", "host_not_allowed"),
    "empty-brackets": ("https://[]/", "host_not_allowed"),
    "open-bracket": ("https://[::1/", "malformed_url"),
    "after-bracket": ("https://[2606:4700::1]x/", "malformed_url"),
    # names
    "localhost": ("https://localhost/", "host_not_allowed"),
    "single-label": ("https://redis/", "host_not_allowed"),
    "empty-label": ("https://a..b/", "host_not_allowed"),
    "trailing-dot": ("https://h.com./", "host_not_allowed"),
    "percent-encoded": ("https://exa%6dple.com/", "host_not_allowed"),
    "underscore": ("https://a_b.example/", "host_not_allowed"),
    "hyphen-first": ("https://-a.example/", "host_not_allowed"),
    "hyphen-last": ("https://a-.example/", "host_not_allowed"),
    "fullwidth": ("https://\uff45xample.com/", "malformed_url"),
    "circled": ("https://\u2460\u2461\u2466.0.0.1/", "malformed_url"),
    "ideographic-dot": ("https://example\u3002com/", "malformed_url"),
    "surrogate": ("https://\ud800.example/", "malformed_url"),
    "label-of-64": (f"https://{'a' * 64}.example/", "host_not_allowed"),
    "host-of-254": (f"https://{'a.' * 126}bb/", "host_not_allowed"),
    "over-2048": ("https://h.example/" + "a" * 2_031, "url_too_long"),
    # ports
    "port-22": ("https://h.example:22/", "port_not_allowed"),
    "port-80": ("https://h.example:80/", "port_not_allowed"),
    "port-0": ("https://h.example:0/", "port_not_allowed"),
    "port-65536": ("https://h.example:65536/", "port_not_allowed"),
    "port-of-many-digits": ("https://h.example:" + "4" * 1_000 + "/", "port_not_allowed"),
    "port-empty": ("https://h.example:/", "port_not_allowed"),
    "port-zero-padded": ("https://h.example:0443/", "port_not_allowed"),
    "port-signed": ("https://h.example:+443/", "port_not_allowed"),
    "two-ports": ("https://h.example:443:443/", "port_not_allowed"),
    # control characters
    "carriage-return": ("https://h.example/a\rb", "malformed_url"),
    "line-feed": ("https://h.example/a\nb", "malformed_url"),
    "null": ("https://h.example\x00.evil.example/", "malformed_url"),
    "space": ("https://h.example/a b", "malformed_url"),
    "fragment": ("https://h.example/#fragment", "malformed_url"),
    "fragment-at-host": ("https://h.example#@evil.example/", "malformed_url"),
    "bad-escape": ("https://h.example/%zz", "malformed_url"),
    "cut-escape": ("https://h.example/%2", "malformed_url"),
    "backslash-in-path": ("https://h.example/a\\b", "malformed_url"),
}


@pytest.mark.parametrize(("url", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_at_submit(url: str, code: str) -> None:
    with pytest.raises(DestinationRefused) as caught:
        parse_destination(url, PRODUCTION)
    assert caught.value.code == code
    assert caught.value.detail.endswith(".")


@pytest.mark.parametrize(
    ("url", "host", "port", "target", "built"),
    [
        pytest.param("https://h.example", "h.example", 443, "/", None, id="no-path"),
        pytest.param("https://h.example?a=1", "h.example", 443, "/?a=1", None, id="query-only"),
        pytest.param(
            "https://h.example:443/", "h.example", 443, "/", "https://h.example/", id="443"
        ),
        pytest.param("https://h.example:8443/a", "h.example", 8443, "/a", None, id="8443"),
        pytest.param(
            "HTTPS://H.Example/A", "h.example", 443, "/A", "https://h.example/A", id="upper-case"
        ),
        pytest.param("https://xn--fa-hia.de/", "xn--fa-hia.de", 443, "/", None, id="punycode"),
        pytest.param("https://h.example/%0d%0a", "h.example", 443, "/%0d%0a", None, id="escapes"),
        pytest.param("https://h.example/a/../b", "h.example", 443, "/a/../b", None, id="dots"),
        pytest.param(
            "https://h.example//a?b?c/@:", "h.example", 443, "//a?b?c/@:", None, id="rest"
        ),
        pytest.param("https://8.8.8.8/", "8.8.8.8", 443, "/", None, id="public-v4"),
        pytest.param(
            "https://[2606:4700:0:0::1111]:8443/",
            "2606:4700::1111",
            8443,
            "/",
            "https://[2606:4700::1111]:8443/",
            id="public-v6",
        ),
        pytest.param(
            f"https://{'a' * 63}.example/", f"{'a' * 63}.example", 443, "/", None, id="63"
        ),
    ],
)
def test_accepted_as_it_is(url: str, host: str, port: int, target: str, built: str | None) -> None:
    destination = parse_destination(url, PRODUCTION)
    assert (destination.host, destination.port, destination.target) == (host, port, target)
    if built is not None:
        assert destination.url == built
    assert destination.url == destination.origin + target


def test_the_longest_url_is_accepted() -> None:
    url = "https://h.example/" + "a" * 2_030
    assert len(url) == 2_048
    assert parse_destination(url, PRODUCTION).url == url


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://localhost:8080/hook", "http://localhost:8080"),
        ("http://localhost/hook", "http://localhost"),
        ("https://127.255.255.254:1/", "https://127.255.255.254:1"),
        ("http://[::1]:65535/", "http://[::1]:65535"),
        ("http://h.example:443/", "http://h.example:443"),
    ],
)
def test_development_opens_loopback_http_and_ports(url: str, origin: str) -> None:
    assert parse_destination(url, DEVELOPMENT).origin == origin
    with pytest.raises(DestinationRefused):
        parse_destination(url, PRODUCTION)


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/",
        "http://169.254.169.254/",
        "http://0.0.0.0/",
        "http://[::]/",
        "http://[::2]/",
        "http://[::ffff:127.0.0.1]/",
        "http://redis/",
        "http://localhost./",
        "http://localhost:65536/",
    ],
)
def test_development_opens_nothing_else(url: str) -> None:
    with pytest.raises(DestinationRefused):
        parse_destination(url, DEVELOPMENT)


# Written from the IANA registries and the clouds' documentation, apart from the module's own list.
SPECIAL_V4 = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
    *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
    *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    *("255.255.255.255/32", "168.63.129.16/32", "100.100.100.200/32", "169.254.170.2/32"),
    *("192.31.196.0/24", "192.52.193.0/24", "192.175.48.0/24"),
]
SPECIAL_V6 = [
    *("::/128", "::1/128", "::ffff:0:0/96", "::/96", "64:ff9b::/96", "64:ff9b:1::/48"),
    *("100::/64", "2001::/32", "2001:2::/48", "2001:10::/28", "2001:20::/28", "2001:db8::/32"),
    *("2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    *("fd00:ec2::254/128", "2620:4f:8000::/48", "4000::/2", "8000::/1"),
]
SPECIAL = [ip_network(text) for text in SPECIAL_V4 + SPECIAL_V6]


@pytest.mark.parametrize("text", SPECIAL_V4 + SPECIAL_V6)
def test_special_networks_are_denied_at_both_ends(text: str) -> None:
    network = ip_network(text)
    for address in (network[0], network[-1]):
        with pytest.raises(DestinationDenied):
            check_address(str(address), PRODUCTION)


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.1",
        "168.63.129.15",
        "168.63.129.17",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "223.255.255.255",
        "2606:4700::1",
        "2a00:1450:4001::1",
        "2001:200::1",
    ],
)
def test_public_neighbours_are_allowed(address: str) -> None:
    check_address(address, PRODUCTION)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "h.example",
        "1.2.3",
        "01.2.3.4",
        "1.2.3.4 ",
        "1.2.3.4\n",
        "0x01.2.3.4",
        "١.2.3.4",
        "2606:4700::1%eth0",
        "2606:4700::1%0",
        "[2606:4700::1]",
        "2606:4700::1\n",
        ":",
        "2606::1::",
    ],
)
def test_what_is_no_plain_address_is_denied(address: str) -> None:
    with pytest.raises(DestinationDenied):
        check_address(address, PRODUCTION)


@given(
    st.one_of(
        st.ip_addresses(v=4),
        st.ip_addresses(v=6),
        st.sampled_from(SPECIAL).flatmap(lambda network: st.ip_addresses(network=network)),
    )
)
def test_no_allowed_address_is_special(address: IPv4Address | IPv6Address) -> None:
    special = any(address in network for network in SPECIAL if network.version == address.version)
    try:
        check_address(str(address), PRODUCTION)
    except DestinationDenied:
        return
    assert not special


PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "https://",
                "http://",
                "//",
                "/",
                "@",
                ":",
                "[",
                "]",
                "::1",
                "127.0.0.1",
                "%",
                "%41",
                "?",
                "#",
                "\\",
                ".",
                "localhost",
                "h.example",
                "8.8.8.8",
                "443",
                "0x7f",
                "\t",
                "\x00",
            ]
        ),
        st.text(max_size=4),
    ),
    max_size=10,
).map("".join)


@given(
    url=st.one_of(st.text(max_size=100), PIECES, PIECES.map("https://".__add__)), policy=POLICIES
)
@example(url="https://[" + ":" * 100 + "]/", policy=PRODUCTION)
def test_any_text_is_parsed_or_refused(url: str, policy: Policy) -> None:
    try:
        destination = parse_destination(url, policy)
    except DestinationRefused:
        return
    assert parse_destination(destination.url, policy) == destination
    other = urlsplit(destination.url)
    assert (other.scheme, other.hostname) == (destination.scheme, destination.host)
    assert (other.port or destination.port) == destination.port
    assert (other.username, other.fragment) == (None, "")
    try:
        address = ip_address(destination.host)
    except ValueError:
        assert "." in destination.host or destination.host == "localhost"
    else:
        check_address(str(address), policy)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer abc.def"},
        {"X-Tenant": 'a, b; c="d"'},
        {"x-empty": ""},
        {f"x-{number}": "v" for number in range(20)},
    ],
)
def test_custom_headers_accepted(headers: dict[str, str]) -> None:
    validate_custom_headers(headers)


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        pytest.param({name: "v"}, name, id=name)
        for name in (
            *("Host", "Content-Length", "content-type", "User-Agent", "webhook-id", "Webhook-X"),
            *("gateway-attempt", "traceparent", "X-Signature", "Content-Encoding", "Expect"),
            *("Connection", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "TE"),
            *("Trailer", "Transfer-Encoding", "Upgrade"),
        )
    ]
    + [
        pytest.param({"x": "a\r\nb: c"}, "x", id="cr-lf"),
        pytest.param({"x": "a\nb"}, "x", id="lf"),
        pytest.param({"x": "a\x00"}, "x", id="nul"),
        pytest.param({"x": "a\n"}, "x", id="trailing-lf"),
        pytest.param({"x": "é"}, "x", id="not-ascii"),
        pytest.param({"x": " a"}, "x", id="leading-space"),
        pytest.param({"x": "a" * 4_097}, "x", id="long-value"),
        pytest.param({"": "v"}, "", id="no-name"),
        pytest.param({"x y": "v"}, "x y", id="space-in-name"),
        pytest.param({"x:": "v"}, "x:", id="colon-in-name"),
        pytest.param({"x\n": "v"}, "x\n", id="lf-in-name"),
        pytest.param({"a" * 129: "v"}, "a" * 128, id="long-name"),
        pytest.param({"x-a": "1", "X-A": "2"}, "X-A", id="twice"),
        pytest.param({f"x-{n}": "v" for n in range(21)}, "", id="too-many"),
        pytest.param({f"x-{n}": "v" * 3_000 for n in range(3)}, "", id="too-much"),
    ],
)
def test_custom_headers_refused_by_name(headers: dict[str, str], name: str) -> None:
    with pytest.raises(HeaderRefused) as caught:
        validate_custom_headers(headers)
    assert caught.value.name == name
