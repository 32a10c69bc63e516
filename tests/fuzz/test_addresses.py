"""Addresses, against an oracle of the special-purpose registries that shares nothing with us."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.egress import Policy, check_address, parse_destination
from delivery.errors import DestinationDenied, DestinationRefused
from tests.fuzz.special_purpose import (
    GLOBAL_UNICAST,
    V4_PREFIXES,
    V6_PREFIXES,
    bounds,
    is_public_v4,
    is_public_v6,
    v6_number,
)

PRODUCTION = Policy()


def edges(prefixes: list[tuple[int, int]], bits: int) -> list[int]:
    """Return the numbers around both ends of each prefix."""
    found: set[int] = {0, (1 << bits) - 1}
    for prefix in prefixes:
        first, last = bounds(prefix, bits)
        found |= {first - 1, first, first + 1, last - 1, last, last + 1}
    return sorted(number for number in found if 0 <= number < 1 << bits)


def inside(prefixes: list[tuple[int, int]], bits: int) -> st.SearchStrategy[int]:
    """Return numbers below one of the prefixes."""
    return st.sampled_from(prefixes).flatmap(lambda prefix: st.integers(*bounds(prefix, bits)))


V4_EDGES = edges(V4_PREFIXES, 32)
V6_EDGES = edges([*V6_PREFIXES, GLOBAL_UNICAST], 128)
V4 = st.one_of(st.integers(0, 2**32 - 1), inside(V4_PREFIXES, 32), st.sampled_from(V4_EDGES))
PLAIN_V6 = st.one_of(
    st.integers(0, 2**128 - 1),
    st.integers(*bounds(GLOBAL_UNICAST, 128)),
    inside(V6_PREFIXES, 128),
    st.sampled_from(V6_EDGES),
)


def embedded(v4: int) -> list[int]:
    """Return IPv6 addresses that stand for an IPv4 address, in every way that was thought of."""
    return [
        v6_number("::ffff:0:0") | v4,  # mapped
        v4,  # compatible
        v6_number("::ffff:0:0:0") | v4,  # translated (SIIT)
        v6_number("64:ff9b::") | v4,  # NAT64
        v6_number("64:ff9b:1::") | v4,  # local NAT64
        v6_number("2002::") | v4 << 80,  # 6to4
        v6_number("2001::") | (v4 ^ 0xFFFFFFFF),  # Teredo
        v6_number("2001::") | v4 << 64,  # a Teredo server
        v6_number("fe80::5efe:0:0") | v4,  # ISATAP
    ]


V6 = st.one_of(PLAIN_V6, V4.flatmap(lambda v4: st.sampled_from(embedded(v4))))


def v4_text(number: int) -> str:
    return socket.inet_ntop(socket.AF_INET, number.to_bytes(4, "big"))


def v6_texts(number: int) -> list[str]:
    """Return spellings of one address, all of them allowed by RFC 4291, section 2.2."""
    packed = number.to_bytes(16, "big")
    short = socket.inet_ntop(socket.AF_INET6, packed)
    groups = [packed[at : at + 2].hex() for at in range(0, 16, 2)]
    mixed = ":".join(groups[:6]) + ":" + v4_text(number & 0xFFFFFFFF)
    return [short, short.upper(), ":".join(groups), mixed]


def is_allowed(address: str) -> bool:
    try:
        return check_address(address, PRODUCTION) == "public"
    except DestinationDenied:
        return False


def is_taken(host: str) -> bool:
    try:
        parse_destination(f"https://{host}/", PRODUCTION)
    except DestinationRefused:
        return False
    return True


@pytest.mark.parametrize("number", V4_EDGES, ids=v4_text)
def test_every_edge_of_the_registry_v4(number: int) -> None:
    assert is_allowed(v4_text(number)) == is_public_v4(number)


@pytest.mark.parametrize("number", V6_EDGES, ids=lambda number: v6_texts(number)[0])
def test_every_edge_of_the_registry_v6(number: int) -> None:
    assert is_allowed(v6_texts(number)[0]) == is_public_v6(number)


@given(V4)
def test_v4_is_allowed_exactly_where_it_is_public(number: int) -> None:
    text = v4_text(number)
    assert is_allowed(text) == is_taken(text) == is_public_v4(number)


@given(V6)
def test_v6_is_allowed_exactly_where_it_is_public_however_it_is_spelt(number: int) -> None:
    public = is_public_v6(number)
    for text in v6_texts(number):
        assert is_allowed(text) == is_taken(f"[{text}]") == public, text


@given(V4)
def test_no_way_to_stand_for_an_ipv4_address_is_allowed(v4: int) -> None:
    for number in embedded(v4):
        assert not is_allowed(v6_texts(number)[0])


@given(V6, st.sampled_from(["%eth0", "%0", "%25eth0", "%", "%1", "/64", "]", " ", "\n", "\0"]))
def test_nothing_may_follow_an_address(number: int, tail: str) -> None:
    text = v6_texts(number)[0] + tail
    assert not is_allowed(text)
    assert not is_taken(f"[{text}]")


@given(
    V4,
    st.sampled_from(
        [
            str,
            hex,
            lambda n: f"0{n:o}",
            lambda n: f"{n >> 24}.{n & 0xFFFFFF}",
            lambda n: f"{n >> 24}.{n >> 16 & 255}.{n & 0xFFFF}",
            lambda n: ".".join(f"{byte:#x}" for byte in n.to_bytes(4, "big")),
            lambda n: ".".join(f"0{byte:o}" for byte in n.to_bytes(4, "big")),
            lambda n: ".".join(f"{byte:03}" for byte in (*n.to_bytes(3 + 1, "big")[:3], 1)),
            lambda n: v4_text(n) + ".",
            lambda n: v4_text(n) + ".0",
            lambda n: f"{v4_text(n)}\0.example.com",
            lambda n: v4_text(n).replace(".", "。"),
            lambda n: v4_text(n).translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")),
        ]
    ),
)
def test_no_other_spelling_of_an_ipv4_address_is_taken(number: int, spell: object) -> None:
    assert callable(spell)
    text = spell(number)
    if text == v4_text(number):
        return  # three digits each: its canonical spelling
    assert not is_allowed(text)
    assert not is_taken(text)
