"""Signatures: the contract's known answers, and what cannot sign."""

from __future__ import annotations

import base64

import pytest

from delivery.errors import SecretError
from delivery.signing import generate_secret, sign

ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP = 1_614_265_330
BODY = b'{"test": 2432232314}'

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
KEY_PAIR = (
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
)
PUBLIC_KEY = "whpk_" + base64.b64encode(base64.b64decode(KEY_PAIR[5:])[32:]).decode()
ASYMMETRIC_SIGNATURE = (
    "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
)


@pytest.mark.parametrize(
    ("secret", "message_id", "timestamp", "body", "signature"),
    [
        pytest.param(SECRET, ID, TIMESTAMP, BODY, SIGNATURE, id="v1"),
        pytest.param(
            OTHER_SECRET,
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1_649_367_553,
            b'{"email":"test@example.com","username":"test_user"}',
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
            id="v1-second",
        ),
        pytest.param(KEY_PAIR, ID, TIMESTAMP, BODY, ASYMMETRIC_SIGNATURE, id="v1a"),
    ],
)
def test_known_answers(
    secret: str, message_id: str, timestamp: int, body: bytes, signature: str
) -> None:
    assert sign([secret], message_id=message_id, timestamp=timestamp, body=body) == signature


def test_a_rotation_signs_with_every_secret() -> None:
    header = sign([SECRET, KEY_PAIR], message_id=ID, timestamp=TIMESTAMP, body=BODY)
    assert header == f"{SIGNATURE} {ASYMMETRIC_SIGNATURE}"


def test_a_new_secret_is_32_random_bytes() -> None:
    secret = generate_secret()
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert secret != generate_secret()


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param("", id="empty"),
        pytest.param("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", id="no-prefix"),
        pytest.param("whsec_", id="nothing-after-the-prefix"),
        pytest.param("whsec_not base64", id="not-base64"),
        pytest.param("whsec_" + base64.b64encode(bytes(23)).decode(), id="23-bytes"),
        pytest.param("whsec_" + base64.b64encode(bytes(65)).decode(), id="65-bytes"),
        pytest.param("whsk_" + base64.b64encode(bytes(32)).decode(), id="seed-only"),
        pytest.param("whsk_" + base64.b64encode(bytes(64)).decode(), id="halves-of-two-keys"),
        pytest.param(PUBLIC_KEY, id="public-key"),
    ],
)
def test_what_cannot_sign_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(SecretError) as caught:
        sign([secret], message_id=ID, timestamp=TIMESTAMP, body=BODY)
    assert len(secret) < 8 or secret[6:] not in str(caught.value)


def test_signing_with_nothing_is_an_error() -> None:
    with pytest.raises(SecretError):
        sign([], message_id=ID, timestamp=TIMESTAMP, body=BODY)
