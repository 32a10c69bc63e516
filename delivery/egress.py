"""Where deliveries may go: a strict grammar for URLs and a closed list of addresses. No I/O.

Two gates, both on exactly what is used. `parse_destination` reads the raw string once and builds
the URL anew from its parts, so that no other parser's reading of the original matters.
`check_address` is asked for the address actually dialled, where the socket is made, so that
literals, several records and names that change all meet it.

The address rules are written out as networks because `ipaddress`'s properties are no gate: on
Python 3.11 `is_global` holds for multicast, NAT64, 6to4 and 168.63.129.16.

What an operator opens goes by the same two gates. Denying wins over allowing, and both win over
the rules here; only the grammar cannot be opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

from delivery.errors import DestinationDenied, DestinationRefused

MAX_URL = 2_048
"""The longest URL, in characters."""

MAX_HOST = 253
MAX_PORT = 65_535
LOCALHOST = "localhost"
"""The one name without a dot that needs no rule for hosts, where the policy opens loopback."""

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

Ground = Literal["public", "opened"]
"""Why an address may be dialled: everybody's rules, or a setting of the operator's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What may be reached; the defaults are for production.

    A rule for hosts is a name, or the end of names with a dot in front: `.example.com` stands for
    everything below `example.com`, and not for itself.

    Attributes:
        allow_http: plain `http` too.
        allow_loopback: exactly 127.0.0.0/8, ::1 and the name `localhost` too.
        ports: the ports that may be dialled; None for any from 1 to 65535.
        allow_networks: addresses that may be dialled, whatever they are.
        deny_networks: addresses that may not, whatever allows them.
        allow_hosts: rules for names that may be plain, and may stand for private addresses.
        deny_hosts: rules for names that may not be dialled.
        own_hosts: names and addresses of the gateway itself: not to be dialled unless allowed.
        own_ports: ports of the gateway on this machine: not to be dialled on loopback.
    """

    allow_http: bool = False
    allow_loopback: bool = False
    ports: frozenset[int] | None = frozenset({443, 8443})
    allow_networks: tuple[Network, ...] = ()
    deny_networks: tuple[Network, ...] = ()
    allow_hosts: frozenset[str] = frozenset()
    deny_hosts: frozenset[str] = frozenset()
    own_hosts: frozenset[str] = frozenset()
    own_ports: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A URL that passed, taken apart.

    Attributes:
        url: built from the parts below; the default port is left out.
        scheme: `https` or `http`.
        host: a lower-case name or a literal address, without brackets.
        port: 1 to 65535.
        target: path and query, byte for byte as given; starts with `/`.
        origin: scheme, host and port, the default port left out.
    """

    url: str
    scheme: str
    host: str
    port: int
    target: str
    origin: str


_DEFAULT_PORTS = {"https": 443, "http": 80}

_PRINTABLE = re.compile(r"[!-~]*", re.ASCII)
_SPLIT = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.ASCII
)
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]@]*\]|[^\[\]@:]*)(?::(?P<port>.*))?", re.ASCII)
_PORT = re.compile(r"0|[1-9]\d{0,4}", re.ASCII)
_TARGET = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*", re.ASCII)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_OCTET = r"(?:0|[1-9]\d?|1\d\d|2[0-4]\d|25[0-5])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}", re.ASCII)
# A last label that some parser reads as a number makes the whole host an address to it.
_NUMERIC_LABEL = re.compile(r"\d+|0[xX][0-9A-Fa-f]*", re.ASCII)


def parse_destination(url: str, policy: Policy) -> Destination:
    """Return the destination that `url` names, if `policy` allows it. No look-up is made.

    The grammar is RFC 3986's, narrowed: absolute, no user information, no fragment, no empty port,
    a host that is a name of letters, digits and hyphens with a dot in it, or a canonical address.

    Raises:
        DestinationRefused: with a coarse code and a sentence for the client; nothing else.
    """
    scheme, authority, rest = _split(url)
    _check_scheme(scheme, policy)
    if "@" in authority:
        raise DestinationRefused(
            "userinfo_not_allowed", "The URL must not hold a user name or password."
        )
    host_text, port_text = _split_authority(authority)
    port = _parse_port(port_text, scheme, policy)
    host, literal = _parse_host(host_text, port, policy)
    target = _parse_target(rest)
    shown_host = f"[{host}]" if literal and ":" in host else host
    origin = f"{scheme}://{shown_host}"
    if port != _DEFAULT_PORTS[scheme]:
        origin = f"{origin}:{port}"
    return Destination(
        url=origin + target, scheme=scheme, host=host, port=port, target=target, origin=origin
    )


def _malformed(detail: str) -> DestinationRefused:
    return DestinationRefused("malformed_url", detail)


def _split(url: str) -> tuple[str, str, str]:
    if len(url) > MAX_URL:
        raise DestinationRefused("url_too_long", f"The URL is longer than {MAX_URL} characters.")
    if not _PRINTABLE.fullmatch(url):
        raise _malformed(
            "The URL must be printable ASCII without spaces; write international names in punycode."
        )
    match = _SPLIT.fullmatch(url)
    if match is None:
        raise _malformed("The URL must be absolute: https://host/path.")
    return match["scheme"].lower(), match["authority"], match["rest"]


def _check_scheme(scheme: str, policy: Policy) -> None:
    if scheme == "https" or (scheme == "http" and policy.allow_http):
        return
    allowed = "https or http" if policy.allow_http else "https"
    raise DestinationRefused("scheme_not_allowed", f"The URL's scheme must be {allowed}.")


def _split_authority(authority: str) -> tuple[str, str | None]:
    match = _AUTHORITY.fullmatch(authority)
    if match is None or not match["host"]:
        raise _malformed("The URL must name a host.")
    return match["host"], match["port"]


def _parse_host(text: str, port: int, policy: Policy) -> tuple[str, bool]:
    """Return the host in its one spelling, and whether it is a literal address."""
    host = text.lower()
    if host.startswith("["):
        host = _parse_ipv6(host[1:-1])
    elif _NUMERIC_LABEL.fullmatch(host.rpartition(".")[2]):
        if not _IPV4.fullmatch(host):
            raise _host_refused("A numeric host must be four decimal numbers from 0 to 255.")
    else:
        _check_name(host, port, policy)
        return host, False
    try:
        check_address(host, policy, port=port)
    except DestinationDenied:
        raise _host_refused("The URL's address is not a public one.") from None
    return host, True


def _host_refused(detail: str) -> DestinationRefused:
    return DestinationRefused("host_not_allowed", detail)


def _parse_ipv6(text: str) -> str:
    address = _ipv6(text)
    if address is None:
        raise _host_refused("The URL's IPv6 address is malformed or has a scope.")
    return address.compressed


def _check_name(host: str, port: int, policy: Policy) -> None:
    labels = host.split(".")
    if len(host) > MAX_HOST or not all(map(_LABEL.fullmatch, labels)):
        raise _host_refused(
            "The URL's host must be a name of letters, digits and hyphens, each part 1 to 63 long, "
            f"{MAX_HOST} in all."
        )
    if matches_host(host, policy.deny_hosts):
        raise _host_refused("The URL's host is not allowed.")
    if matches_host(host, policy.allow_hosts):
        return
    if host in policy.own_hosts or (host == LOCALHOST and port in policy.own_ports):
        raise _host_refused("The URL's host is this gateway.")
    if len(labels) == 1 and not (host == LOCALHOST and policy.allow_loopback):
        raise _host_refused("The URL's host must be a full name with a dot in it.")


def matches_host(host: str, rules: frozenset[str]) -> bool:
    """Tell whether one of `rules` stands for the name `host`, given in lower case."""
    if not rules:
        return False
    if host in rules:
        return True
    labels = host.split(".")
    return any(f".{'.'.join(labels[at:])}" in rules for at in range(1, len(labels)))


def _parse_port(text: str | None, scheme: str, policy: Policy) -> int:
    if text is None:
        port = _DEFAULT_PORTS[scheme]
    elif _PORT.fullmatch(text):
        port = int(text)
    else:
        raise DestinationRefused("port_not_allowed", "The URL's port must be a decimal number.")
    if not 1 <= port <= MAX_PORT or (policy.ports is not None and port not in policy.ports):
        allowed = "1 to 65535" if policy.ports is None else _listed(policy.ports)
        raise DestinationRefused("port_not_allowed", f"The URL's port must be {allowed}.")
    return port


def _listed(ports: frozenset[int]) -> str:
    return " or ".join(str(port) for port in sorted(ports))


def _parse_target(rest: str) -> str:
    if "#" in rest:
        raise _malformed("The URL must not have a fragment.")
    match = _TARGET.match(rest)
    end = match.end() if match else 0
    if end != len(rest):
        raise _malformed(
            f"The URL's path or query holds {rest[end]!r}, which must be percent-encoded."
        )
    return rest if rest.startswith("/") else "/" + rest


_LOOPBACK_V4 = IPv4Network("127.0.0.0/8")
_LOOPBACK_V6 = IPv6Address("::1")

# IANA's IPv4 Special-Purpose Address Registry (RFC 6890), whole, with multicast and the
# addresses at which clouds serve credentials.
_DENIED_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared address space; Alibaba's metadata at 100.100.100.200
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # Azure's host
            "169.254.0.0/16",  # link local; metadata at 169.254.169.254
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # IETF protocol assignments; Oracle's metadata at 192.0.0.192
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # AMT
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarking
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, limited broadcast
        ),
    )
)

_ALLOWED_V6 = IPv6Network("2000::/3")  # all that IANA has given out as global unicast
_DENIED_V6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # IETF protocol assignments: Teredo, ORCHID, benchmarking, AMT
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: any IPv4 address inside
            "2620:4f:8000::/48",  # AS112
            "3ffe::/16",  # the 6bone, returned
            "3fff::/20",  # documentation
        ),
    )
)


# What a name that the operator allows may stand for besides public addresses.
_PRIVATE_V4 = tuple(
    map(
        IPv4Network,
        ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
    )
)
_PRIVATE_V6 = (IPv6Network("fc00::/7"), IPv6Network("::1/128"))
# Inside of these, and yet no service of the operator's: clouds serve credentials there.
_METADATA: frozenset[Address] = frozenset(
    {
        IPv4Address("100.100.100.200"),
        IPv6Address("fd00:ec2::254"),
        IPv6Address("fd20:ce::254"),
    }
)


def check_address(
    address: str, policy: Policy, *, host: str = "", port: int | None = None
) -> Ground:
    """Return why `address` (an IPv4 or IPv6 literal) may be dialled under `policy`.

    Nothing is unwrapped: an IPv4 address mapped or translated into IPv6 is refused as it stands,
    and so is an address with a scope.

    Args:
        address: as it is dialled.
        policy: the rules.
        host: the name that stands for it, in lower case; empty for a literal.
        port: that is dialled; None where that is not known yet, and will be asked again.

    Raises:
        DestinationDenied: not allowed, or not an address at all.
    """
    parsed = _address(address)
    if parsed is None or _is_in(parsed, policy.deny_networks):
        raise DestinationDenied
    if matches_host(host, policy.deny_hosts):
        raise DestinationDenied
    if _is_in(parsed, policy.allow_networks) or _is_allowed_host(host, parsed, policy):
        return "opened"
    if policy.allow_loopback and _is_loopback(parsed):
        if port in policy.own_ports:
            raise DestinationDenied
        return "opened"
    if parsed.compressed in policy.own_hosts or not _is_public(parsed):
        raise DestinationDenied
    return "public"


def _address(text: str) -> Address | None:
    """Return the address, or None for anything but its plain spelling."""
    if ":" in text:
        return _ipv6(text)
    return IPv4Address(text) if _IPV4.fullmatch(text) else None


def _ipv6(text: str) -> IPv6Address | None:
    """Return the address, or None for a malformed one or one with a scope."""
    try:
        return None if "%" in text else IPv6Address(text)
    except AddressValueError:
        return None


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not _is_in(address, _DENIED_V4)
    return address in _ALLOWED_V6 and not _is_in(address, _DENIED_V6)


def _is_loopback(address: Address) -> bool:
    return address in _LOOPBACK_V4 or address == _LOOPBACK_V6


def _is_allowed_host(host: str, address: Address, policy: Policy) -> bool:
    if not matches_host(host, policy.allow_hosts) or address in _METADATA:
        return False
    return _is_public(address) or _is_in(address, (*_PRIVATE_V4, *_PRIVATE_V6))
