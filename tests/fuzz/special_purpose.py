"""An oracle for addresses, apart from the product's: the IANA registries as plain numbers.

The rows are those of IANA's IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890 and its
updates), one a line with the RFC that made it, whatever the registry says about reachability, and
besides them multicast, what is not given out as global unicast, and what clouds keep for
themselves. Nothing of `delivery.egress` or of `ipaddress` is used: prefixes are compared by bits.
"""

from __future__ import annotations

import re
import socket

V4_ROWS = """
0.0.0.0/8           this network                    RFC 791
0.0.0.0/32          this host on this network       RFC 1122
10.0.0.0/8          private use                     RFC 1918
100.64.0.0/10       shared address space            RFC 6598
127.0.0.0/8         loopback                        RFC 1122
169.254.0.0/16      link local                      RFC 3927
172.16.0.0/12       private use                     RFC 1918
192.0.0.0/24        IETF protocol assignments       RFC 6890
192.0.0.0/29        IPv4 service continuity         RFC 7335
192.0.0.8/32        IPv4 dummy address              RFC 7600
192.0.0.9/32        port control protocol anycast   RFC 7723
192.0.0.10/32       TURN anycast                    RFC 8155
192.0.0.170/32      NAT64/DNS64 discovery           RFC 7050
192.0.0.171/32      NAT64/DNS64 discovery           RFC 7050
192.0.2.0/24        documentation                   RFC 5737
192.31.196.0/24     AS112                           RFC 7535
192.52.193.0/24     AMT                             RFC 7450
192.88.99.0/24      6to4 relay anycast              RFC 7526
192.168.0.0/16      private use                     RFC 1918
192.175.48.0/24     direct delegation AS112         RFC 7534
198.18.0.0/15       benchmarking                    RFC 2544
198.51.100.0/24     documentation                   RFC 5737
203.0.113.0/24      documentation                   RFC 5737
240.0.0.0/4         reserved                        RFC 1112
255.255.255.255/32  limited broadcast               RFC 919
224.0.0.0/4         multicast                       RFC 5771
168.63.129.16/32    Azure's host                    vendor
"""

V6_ROWS = """
::1/128             loopback                        RFC 4291
::/128              unspecified                     RFC 4291
::ffff:0:0/96       IPv4-mapped                     RFC 4291
64:ff9b::/96        IPv4-IPv6 translation           RFC 6052
64:ff9b:1::/48      IPv4-IPv6 translation           RFC 8215
100::/64            discard only                    RFC 6666
100:0:0:1::/64      dummy prefix                    RFC 9780
2001::/23           IETF protocol assignments       RFC 2928
2001::/32           Teredo                          RFC 4380
2001:1::1/128       port control protocol anycast   RFC 7723
2001:1::2/128       TURN anycast                    RFC 8155
2001:1::3/128       DNS-SD SRP anycast              RFC 9665
2001:2::/48         benchmarking                    RFC 5180
2001:3::/32         AMT                             RFC 7450
2001:4:112::/48     AS112                           RFC 7535
2001:10::/28        ORCHID                          RFC 4843
2001:20::/28        ORCHIDv2                        RFC 7343
2001:30::/28        drone remote identification     RFC 9374
2001:db8::/32       documentation                   RFC 3849
2002::/16           6to4                            RFC 3056
2620:4f:8000::/48   direct delegation AS112         RFC 7534
3fff::/20           documentation                   RFC 9637
5f00::/16           segment routing SIDs            RFC 9602
fc00::/7            unique local                    RFC 4193
fe80::/10           link local                      RFC 4291
ff00::/8            multicast                       RFC 4291
fec0::/10           site local                      RFC 3879
3ffe::/16           6bone                           RFC 3701
"""

GLOBAL_UNICAST = (0b001 << 125, 3)  # 2000::/3, RFC 4291 and IANA's address space registry


def v4_number(text: str) -> int:
    """Return an address in dotted decimal as a number."""
    return int.from_bytes(socket.inet_pton(socket.AF_INET, text), "big")


def v6_number(text: str) -> int:
    """Return an IPv6 address as a number."""
    return int.from_bytes(socket.inet_pton(socket.AF_INET6, text), "big")


def _rows(table: str) -> list[tuple[str, int]]:
    return [
        (network, int(length))
        for network, length in re.findall(r"^(\S+)/(\d+)\s", table, re.MULTILINE)
    ]


V4_PREFIXES = [(v4_number(network), length) for network, length in _rows(V4_ROWS)]
V6_PREFIXES = [(v6_number(network), length) for network, length in _rows(V6_ROWS)]


def _is_below(number: int, prefix: tuple[int, int], bits: int) -> bool:
    network, length = prefix
    return number >> (bits - length) == network >> (bits - length)


def is_public_v4(number: int) -> bool:
    """Tell whether an IPv4 address is nobody's special purpose."""
    return not any(_is_below(number, prefix, 32) for prefix in V4_PREFIXES)


def is_public_v6(number: int) -> bool:
    """Tell whether an IPv6 address is global unicast and nobody's special purpose."""
    return _is_below(number, GLOBAL_UNICAST, 128) and not any(
        _is_below(number, prefix, 128) for prefix in V6_PREFIXES
    )


def bounds(prefix: tuple[int, int], bits: int) -> tuple[int, int]:
    """Return the first and the last number below a prefix."""
    network, length = prefix
    return network, network | ((1 << (bits - length)) - 1)
