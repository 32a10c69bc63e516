"""Signatures: the contract's known answers, and what must not verify."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.clock import SECOND
from delivery.errors import SecretError, SignatureInvalid
from delivery.signing import generate_secret, sign, verify

ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP = 1_614_265_330
BODY = b'{"test": 2432232314}'
NOW = TIMESTAMP * SECOND

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


def received(**changes: str | None) -> dict[str, str]:
    headers: dict[str, str | None] = {
        "webhook-id": ID,
        "webhook-timestamp": str(TIMESTAMP),
        "webhook-signature": SIGNATURE,
    }
    headers.update({f"webhook-{name}": value for name, value in changes.items()})
    return {name: value for name, value in headers.items() if value is not None}


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


@pytest.mark.parametrize(
    ("secret", "signature"),
    [
        pytest.param(SECRET, SIGNATURE, id="v1"),
        pytest.param(PUBLIC_KEY, ASYMMETRIC_SIGNATURE, id="v1a-public"),
        pytest.param(KEY_PAIR, ASYMMETRIC_SIGNATURE, id="v1a-pair"),
        pytest.param(SECRET, f"v1,bad v2,x {SIGNATURE}", id="one-good-among-bad"),
        pytest.param(SECRET, f"v1,!!! v1, , {SIGNATURE} v1a,AAAA", id="one-good-among-junk"),
    ],
)
def test_verifies(secret: str, signature: str) -> None:
    verify([OTHER_SECRET, secret], received(signature=signature), BODY, NOW)


def test_header_names_are_read_in_any_case() -> None:
    verify([SECRET], {name.title(): value for name, value in received().items()}, BODY, NOW)


@pytest.mark.parametrize(
    ("changes", "part", "fault"),
    [
        pytest.param({"id": None}, "webhook-id", "missing", id="no-id"),
        pytest.param({"id": "msg_other"}, "webhook-signature", "no_match", id="other-id"),
        pytest.param({"timestamp": None}, "webhook-timestamp", "missing", id="no-timestamp"),
        pytest.param({"timestamp": "soon"}, "webhook-timestamp", "malformed", id="not-a-number"),
        pytest.param({"timestamp": "1e9"}, "webhook-timestamp", "malformed", id="exponent"),
        pytest.param({"timestamp": "-1"}, "webhook-timestamp", "malformed", id="negative"),
        pytest.param({"timestamp": "٣"}, "webhook-timestamp", "malformed", id="other-digits"),
        pytest.param({"timestamp": "9" * 5_000}, "webhook-timestamp", "malformed", id="huge"),
        pytest.param({"signature": None}, "webhook-signature", "missing", id="no-signature"),
        pytest.param({"signature": ""}, "webhook-signature", "missing", id="empty"),
        pytest.param({"signature": "v1,"}, "webhook-signature", "malformed", id="scheme-only"),
        pytest.param({"signature": "v1,a?b"}, "webhook-signature", "malformed", id="not-base64"),
        pytest.param({"signature": "v1,é"}, "webhook-signature", "malformed", id="not-ascii"),
        pytest.param({"signature": "v1,AAAA"}, "webhook-signature", "no_match", id="too-short"),
        pytest.param(
            {"signature": SIGNATURE.replace("v1,", "v2,")},
            "webhook-signature",
            "no_match",
            id="other-scheme",
        ),
        pytest.param(
            {"signature": "v1,AAAA " * 2_000}, "webhook-signature", "malformed", id="too-long"
        ),
    ],
)
def test_a_bad_header_is_named(changes: dict[str, str | None], part: str, fault: str) -> None:
    with pytest.raises(SignatureInvalid) as caught:
        verify([SECRET], received(**changes), BODY, NOW)
    assert (caught.value.part, caught.value.fault) == (part, fault)


@pytest.mark.parametrize("body", [BODY + b"\n", BODY[:-1], b""])
def test_another_body_does_not_verify(body: bytes) -> None:
    with pytest.raises(SignatureInvalid) as caught:
        verify([SECRET], received(), body, NOW)
    assert caught.value.fault == "no_match"


@pytest.mark.parametrize("secret", [OTHER_SECRET, generate_secret()])
def test_another_secret_does_not_verify(secret: str) -> None:
    with pytest.raises(SignatureInvalid):
        verify([secret], received(), BODY, NOW)


def test_no_secret_verifies_nothing() -> None:
    with pytest.raises(SignatureInvalid):
        verify([], received(), BODY, NOW)


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_five_minutes_either_way_are_tolerated(seconds: int) -> None:
    verify([SECRET], received(), BODY, NOW + seconds * SECOND)


@pytest.mark.parametrize(("seconds", "fault"), [(301, "too_old"), (-301, "too_new")])
def test_a_second_more_is_not(seconds: int, fault: str) -> None:
    with pytest.raises(SignatureInvalid) as caught:
        verify([SECRET], received(), BODY, NOW + seconds * SECOND)
    assert (caught.value.part, caught.value.fault) == ("webhook-timestamp", fault)


@given(body=st.binary(max_size=512), key=st.binary(min_size=24, max_size=64))
def test_what_is_signed_verifies(body: bytes, key: bytes) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    header = sign([secret], message_id=ID, timestamp=TIMESTAMP, body=body)
    verify([secret], received(signature=header), body, NOW)


@given(st.dictionaries(st.sampled_from(["id", "timestamp", "signature"]), st.text(max_size=80)))
def test_no_header_makes_verifying_fail_otherwise(changes: dict[str, str]) -> None:
    with pytest.raises(SignatureInvalid):
        verify([OTHER_SECRET], received(**changes), BODY, NOW)


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
