"""Keys are found by digest, remembered for a second at most, and let in for what they may do."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth import (
    SCOPES,
    ApiKey,
    ApiKeyError,
    Authenticator,
    Principal,
    Scope,
    bearer,
    bootstrap_key,
    digest_of,
    is_made_here,
    make_key,
)
from gateway.problems import Problem

TOKEN, KEY = make_key("acme", {"submit", "read"}, 1_000)


class FakeClock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> int:
        """Return µs."""
        return int(self.seconds * 1_000_000)

    def monotonic(self) -> float:
        """Return seconds."""
        return self.seconds


class Keys:
    """Keys by digest, counting how often they were asked for."""

    def __init__(self, *keys: ApiKey) -> None:
        self.kept = {key.digest: key for key in keys}
        self.asked = 0

    async def find(self, digest: str) -> ApiKey | None:
        """Return the key of `digest`."""
        self.asked += 1
        return self.kept.get(digest)


def test_a_key_is_recognisable_and_its_record_does_not_hold_it() -> None:
    assert TOKEN.startswith("gwk_")
    assert KEY.digest == digest_of(TOKEN)
    assert TOKEN not in repr(KEY)
    assert make_key("acme", {"read"}, 0)[0] != make_key("acme", {"read"}, 0)[0]


@given(
    scopes=st.frozensets(st.sampled_from(sorted(SCOPES))),
    now=st.integers(0, 2**53),
    name=st.text(st.characters(exclude_categories=["Cs"])),
    expires_at=st.none() | st.integers(0, 2**53),
)
def test_a_record_survives_the_store(
    scopes: frozenset[Scope], now: int, name: str, expires_at: int | None
) -> None:
    key = ApiKey(
        id="key_1",
        digest="d" * 64,
        tenant="acme",
        scopes=scopes,
        created_at=now,
        name=name,
        expires_at=expires_at,
    )
    kept = {name.encode(): value.encode() for name, value in key.encode().items()}
    assert ApiKey.decode(kept) == key


def test_scopes_of_a_later_release_are_left_out() -> None:
    kept = {name.encode(): value.encode() for name, value in KEY.encode().items()}
    kept[b"scopes"] = b"read,teleport"
    assert ApiKey.decode(kept).scopes == {"read"}


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abcdefgh", "abcdefgh"),
        ("bearer   abcdefgh", "abcdefgh"),
        ("Bearer " + "x" * 255, "x" * 255),
    ],
)
def test_bearer(header: str, token: str) -> None:
    assert bearer(header) == token


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer short",
        "Basic YWxhZGRpbg==",
        "Bearer two words12",
        "Bearer " + "x" * 256,
        "Bearer ümläutümläut",
        "Bearer abc\x00defgh",
    ],
)
def test_no_bearer(header: str | None) -> None:
    with pytest.raises(Problem) as caught:
        bearer(header)
    assert caught.value.code == "unauthorized"


async def test_a_known_key_is_a_principal() -> None:
    authenticator = Authenticator(Keys(KEY).find, FakeClock())
    principal = await authenticator.authenticate(f"Bearer {TOKEN}")
    assert principal == Principal(tenant="acme", scopes=KEY.scopes, key_id=KEY.id)


class Digest(str):
    """A digest that tells how far another one is like it to nobody: it is not compared by `==`."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        raise AssertionError(f"compared with {other!r} by ==")

    def __ne__(self, other: object) -> bool:
        raise AssertionError(f"compared with {other!r} by !=")

    __hash__ = str.__hash__


OTHER_TOKEN, OTHER_KEY = make_key("acme", {"read"}, 0)


@pytest.mark.parametrize(
    ("token", "is_let_in"), [(TOKEN, True), (OTHER_TOKEN, False)], ids=["its", "another"]
)
async def test_what_is_kept_of_a_key_is_compared_in_constant_time(
    token: str, is_let_in: bool
) -> None:
    kept = replace(KEY, digest=Digest(KEY.digest))

    async def find(_digest: str) -> ApiKey:
        return kept

    for authenticator in (
        Authenticator(find, FakeClock()),
        Authenticator(Keys().find, FakeClock(), kept),
    ):
        entered = None
        with suppress(Problem):
            entered = await authenticator.authenticate(f"Bearer {token}")
        assert (entered is not None) == is_let_in


async def test_an_unknown_key_is_refused() -> None:
    authenticator = Authenticator(Keys().find, FakeClock())
    with pytest.raises(Problem, match="unauthorized"):
        await authenticator.authenticate(f"Bearer {TOKEN}")


async def test_a_revoked_key_is_refused_within_a_second() -> None:
    keys, clock = Keys(KEY), FakeClock()
    authenticator = Authenticator(keys.find, clock)
    await authenticator.authenticate(f"Bearer {TOKEN}")
    keys.kept.clear()
    clock.seconds = 0.9
    await authenticator.authenticate(f"Bearer {TOKEN}")
    assert keys.asked == 1
    clock.seconds = 1.0
    with pytest.raises(Problem, match="unauthorized"):
        await authenticator.authenticate(f"Bearer {TOKEN}")


async def test_a_new_key_works_at_once_though_it_was_tried_before() -> None:
    keys = Keys()
    authenticator = Authenticator(keys.find, FakeClock())
    with pytest.raises(Problem):
        await authenticator.authenticate(f"Bearer {TOKEN}")
    keys.kept[KEY.digest] = KEY
    assert (await authenticator.authenticate(f"Bearer {TOKEN}")).tenant == "acme"


async def test_what_is_remembered_is_bounded() -> None:
    made = [make_key("acme", {"read"}, 0) for _ in range(1_030)]
    keys = Keys(*(key for _, key in made))
    authenticator = Authenticator(keys.find, FakeClock())
    for token, _ in made:
        await authenticator.authenticate(f"Bearer {token}")
    await authenticator.authenticate(f"Bearer {made[-1][0]}")
    assert keys.asked == 1_030
    await authenticator.authenticate(f"Bearer {made[0][0]}")
    assert keys.asked == 1_031


def test_a_made_key_ends_with_its_checksum() -> None:
    assert is_made_here(TOKEN)
    assert not is_made_here(TOKEN[:-1])
    assert not is_made_here(TOKEN + "0")
    assert not is_made_here(TOKEN.upper())


@given(at=st.integers(0, len(TOKEN) - 1), char=st.characters(codec="ascii"))
def test_one_wrong_character_is_noticed(at: int, char: str) -> None:
    changed = TOKEN[:at] + char + TOKEN[at + 1 :]
    assert is_made_here(changed) == (changed == TOKEN)


@pytest.mark.parametrize(
    "token", ["some-other-text", "gwk_short", TOKEN[:-1], TOKEN[:-8] + "0" * 8]
)
async def test_what_no_gateway_made_is_refused_without_asking(token: str) -> None:
    keys = Keys()
    authenticator = Authenticator(keys.find, FakeClock(), bootstrap_key("any-8-chars!"))
    with pytest.raises(Problem, match="unauthorized"):
        await authenticator.authenticate(f"Bearer {token}")
    assert keys.asked == 0


async def test_an_expired_key_is_refused_though_it_is_remembered() -> None:
    token, key = make_key("acme", {"read"}, 0, expires_at=500_000)
    clock = FakeClock()
    authenticator = Authenticator(Keys(key).find, clock)
    await authenticator.authenticate(f"Bearer {token}")
    clock.seconds = 0.5
    with pytest.raises(Problem, match="expired"):
        await authenticator.authenticate(f"Bearer {token}")


async def test_the_bootstrap_key_may_do_everything_without_the_store() -> None:
    keys = Keys()
    authenticator = Authenticator(keys.find, FakeClock(), bootstrap_key("any-8-chars!"))
    principal = await authenticator.authenticate("Bearer any-8-chars!")
    assert principal.scopes == SCOPES
    assert principal.tenant == "default"
    assert keys.asked == 0


@pytest.mark.parametrize("token", ["", "short", "with space", "x" * 256, "ümläutümläut"])
def test_what_cannot_be_a_bootstrap_key(token: str) -> None:
    with pytest.raises(ApiKeyError, match="bootstrap_api_key"):
        bootstrap_key(token)


@pytest.mark.parametrize("scope", sorted(SCOPES))
def test_no_scope_includes_another(scope: Scope) -> None:
    principal = Principal(tenant="acme", scopes=frozenset({scope}), key_id="key_1")
    principal.require(scope)
    for other in SCOPES - {scope}:
        with pytest.raises(Problem, match="insufficient_scope"):
            principal.require(other)
