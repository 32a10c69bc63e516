"""Signatures: published answers, what goes into which header, and what cannot sign."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import get_args

import pytest

from delivery.errors import SecretError
from delivery.models import Scheme
from delivery.signing import (
    SECRETS_OF,
    check_secret,
    generate_secret,
    public_key,
    sign,
    sign_body,
    signature_headers,
)
from tests.vectors import PUBLIC_KEY, V1, V1_OTHER, V1A, VECTORS, X_SIGNATURE, Vector

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)


def headers(
    scheme: Scheme,
    secrets: Mapping[Scheme, Sequence[str]],
    number: int = 1,
    vector: Vector = V1,
) -> dict[str, str]:
    return signature_headers(
        scheme,
        secrets,
        message_id=vector.message_id,
        timestamp=vector.timestamp,
        number=number,
        body=vector.body,
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda each: each.scheme)
def test_published_answers(vector: Vector) -> None:
    secrets: dict[Scheme, list[str]] = {"v1": [V1.secret], vector.scheme: [vector.secret]}
    made = headers(vector.scheme, secrets, vector=vector)
    name = "x-signature" if vector.scheme == "x-signature" else "webhook-signature"
    assert made[name] == vector.signature


def test_x_signature_comes_beside_v1() -> None:
    made = headers("x-signature", {"v1": [V1.secret], "x-signature": [X_SIGNATURE.secret]})
    assert made == {
        "webhook-signature": V1.signature,
        "x-signature": sign_body(X_SIGNATURE.secret, V1.body),
    }


def test_a_rotation_signs_with_every_secret() -> None:
    assert sign(
        [V1.secret, V1A.secret], message_id=V1.message_id, timestamp=V1.timestamp, body=V1.body
    ) == (f"{V1.signature} {V1A.signature}")
    for scheme, vector in (("v1", V1), ("v1a", V1A)):
        other = generate_secret(vector.scheme)
        made = headers(vector.scheme, {vector.scheme: [other, vector.secret]})
        assert made["webhook-signature"].split(" ")[1] == vector.signature
        assert made["webhook-signature"].count(f"{scheme},") == 2


def test_x_signature_takes_turns_in_a_rotation() -> None:
    texts = [generate_secret("x-signature") for _ in range(3)]
    secrets: dict[Scheme, list[str]] = {"v1": [V1.secret], "x-signature": texts}
    made = [headers("x-signature", secrets, number)["x-signature"] for number in range(1, 6)]
    first, second, third = (sign_body(text, V1.body) for text in texts)
    assert made == [first, second, third, first, second]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_new_secret_can_sign_and_is_like_no_other(scheme: Scheme) -> None:
    secret, other = generate_secret(scheme), generate_secret(scheme)
    check_secret(scheme, secret)
    assert secret != other
    assert headers(scheme, {each: [generate_secret(each)] for each in SECRETS_OF[scheme]})


def test_a_new_secret_is_of_256_bits() -> None:
    assert len(base64.b64decode(generate_secret().removeprefix("whsec_"), validate=True)) == 32
    assert len(base64.b64decode(generate_secret("v1a")[5:], validate=True)) == 64
    assert len(generate_secret("x-signature")) == len("xsig_") + 43


def test_a_key_pair_has_the_public_key_of_its_second_half() -> None:
    assert public_key(V1A.secret) == PUBLIC_KEY
    for secret in (V1.secret, PUBLIC_KEY, X_SIGNATURE.secret):
        with pytest.raises(SecretError):
            public_key(secret)


MALFORMED = [
    pytest.param("", id="empty"),
    pytest.param("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", id="no-prefix"),
    pytest.param("whsec_", id="nothing-after-the-prefix"),
    pytest.param("whsec_not base64", id="not-base64"),
    pytest.param("whsec_" + base64.b64encode(bytes(23)).decode(), id="23-bytes"),
    pytest.param("whsec_" + base64.b64encode(bytes(65)).decode(), id="65-bytes"),
    pytest.param("whsk_" + base64.b64encode(bytes(32)).decode(), id="seed-only"),
    pytest.param("whsk_" + base64.b64encode(bytes(64)).decode(), id="halves-of-two-keys"),
    pytest.param(PUBLIC_KEY, id="public-key"),
]


@pytest.mark.parametrize("secret", MALFORMED)
def test_what_cannot_sign_is_refused_and_not_shown(secret: str) -> None:
    for attempt in (
        lambda: check_secret("v1", secret),
        lambda: check_secret("v1a", secret),
        lambda: sign([secret], message_id="m", timestamp=1, body=b""),
    ):
        with pytest.raises(SecretError) as caught:
            attempt()
        assert len(secret) < 8 or secret[6:] not in str(caught.value)


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param("x" * 23, id="too-short"),
        pytest.param("x" * 129, id="too-long"),
        pytest.param(" " + "x" * 30, id="space-before"),
        pytest.param("x" * 30 + " ", id="space-after"),
        pytest.param("x" * 15 + "\t" + "x" * 15, id="control-character"),
        pytest.param("é" * 30, id="not-ascii"),
        pytest.param(V1.secret, id="of-v1"),
        pytest.param(V1A.secret, id="of-v1a"),
        pytest.param(PUBLIC_KEY, id="public-key"),
    ],
)
def test_a_text_that_cannot_sign_is_refused_and_not_shown(secret: str) -> None:
    for attempt in (
        lambda: check_secret("x-signature", secret),
        lambda: sign_body(secret, b""),
    ):
        with pytest.raises(SecretError) as caught:
            attempt()
        assert secret.strip() not in str(caught.value)


def test_a_secret_of_another_scheme_is_refused() -> None:
    wrong: list[tuple[Scheme, Vector]] = [("v1", V1A), ("v1a", V1_OTHER), ("v1", X_SIGNATURE)]
    for scheme, vector in wrong:
        with pytest.raises(SecretError):
            check_secret(scheme, vector.secret)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_signing_with_nothing_is_an_error(scheme: Scheme) -> None:
    for needed in SECRETS_OF[scheme]:
        others = {each: [generate_secret(each)] for each in SECRETS_OF[scheme] if each != needed}
        with pytest.raises(SecretError):
            headers(scheme, others)
